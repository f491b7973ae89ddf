"""Where things live on a node. These paths are public: operators, monitoring and other tools rely on them."""

CONFIG = "/etc/containerd/config.toml"
DROP_INS = "/etc/containerd/conf.d"
DROP_INS_GLOB = f"{DROP_INS}/*.toml"
UNIT = "/etc/systemd/system/containerd.service"
UNIT_DROP_IN = "/etc/systemd/system/containerd.service.d/50-userns-node.conf"
MODPROBE = "/etc/modprobe.d/overlay-metacopy.conf"
SYSCTL = "/etc/sysctl.d/90-userns-node.conf"
SUBUID = "/etc/subuid"
SUBGID = "/etc/subgid"

STATE = "/var/lib/userns-node"
MANIFEST = f"{STATE}/manifest"
# There from a change on until its proof has succeeded.
UNPROVEN = f"{STATE}/unproven"
# What others had written into our files, kept for good: NAME.DIGEST.
REPLACED = f"{STATE}/replaced"
LIBEXEC = "/usr/local/libexec/userns-node"
PRE_START = f"{LIBEXEC}/pre-start"
CHECK = f"{LIBEXEC}/check"
CHECK_UNIT = "/etc/systemd/system/userns-node-check.service"
# What the check found after the last boot, for monitoring.
READINESS = "/run/userns-node/readiness.json"

# Names the file of metrics that the check's unit wrote last.
METRICS = f"{STATE}/metrics"

# From a release or a bundle. A package keeps its own places (PACKAGED).
INSTALLED = {
    "containerd": "/usr/local/bin/containerd",
    "ctr": "/usr/local/bin/ctr",
    "containerd-shim-runc-v2": "/usr/local/bin/containerd-shim-runc-v2",
    "runc": "/usr/local/sbin/runc",
    "crun": "/usr/local/bin/crun",
}
PACKAGED = {
    "containerd": "/usr/bin/containerd",
    "ctr": "/usr/bin/ctr",
    "containerd-shim-runc-v2": "/usr/bin/containerd-shim-runc-v2",
    "runc": "/usr/sbin/runc",
    "crun": "/usr/bin/crun",
}


def installed(install_from: str) -> dict[str, str]:
    """Where each program is, once installed from there."""
    return PACKAGED if install_from == "package" else INSTALLED


# Files whose digest, mode and owner every reading of a node brings back.
MANAGED = (CONFIG, UNIT, UNIT_DROP_IN, MODPROBE, SYSCTL, PRE_START, CHECK, CHECK_UNIT, SUBUID, SUBGID)
# Of these, the files in which other people's lines stay as they are.
SHARED = (SUBUID, SUBGID)

# What an image has beside them for its first boot: the renderings for each kind of kernel, and what picks from them.
CONFIG_FOR = {"idmapped": f"{CONFIG}.idmapped", "slow-chown": f"{CONFIG}.slow-chown"}
CHECK_FOR = {tier: f"{CHECK}.{tier}" for tier in ("idmapped", "rootfs-only", "chown", "unsupported")}
FIRST_BOOT = f"{LIBEXEC}/first-boot"
FIRST_BOOT_UNIT = "/etc/systemd/system/userns-node-first-boot.service"
IMAGE_RECORD = f"{STATE}/image.json"
# What the deploy has installed in it, as CycloneDX JSON: by the name that the format's own tools look for.
IMAGE_SBOM = f"{STATE}/image.cdx.json"
IMAGE = (*CONFIG_FOR.values(), *CHECK_FOR.values(), FIRST_BOOT, FIRST_BOOT_UNIT, IMAGE_RECORD, IMAGE_SBOM)
