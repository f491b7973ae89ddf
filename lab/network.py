"""The addresses of a lab. Each lab has a network namespace of its own, so all labs use the same ones."""

BRIDGE = "lab0"
CONTROLLER = "10.77.0.1"
PREFIX = 16
FIRST_NODE = 11


def address(number: int) -> str:
    """The address of the node with this number."""
    return f"10.77.{number // 250}.{number % 250}"


def plug_in(node: str, number: int) -> str:
    """A shell script that makes the node's network namespace and joins it to the bridge, to be run inside the lab."""
    return f"""
        ip netns add {node}
        ip link add port{number} type veth peer name eth0 netns {node}
        ip link set port{number} master {BRIDGE} up
        ip -n {node} link set lo up
        ip -n {node} address add {address(number)}/{PREFIX} dev eth0
        ip -n {node} link set eth0 up
    """


def plug_in_tap(port: str) -> str:
    """A shell script that makes a virtual machine's port on the bridge, to be run inside the lab."""
    return f"""
        ip tuntap add dev {port} mode tap
        ip link set {port} master {BRIDGE} up
    """
