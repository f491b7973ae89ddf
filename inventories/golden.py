"""Images, by their root directories: `IMAGE_ROOTS=/a/root:/another pyinfra inventories/golden.py deploy.py`, as root.

Settings come from group_data/ and `--data`, as for nodes. docs/how-to/golden-image.md has the rest.
"""

import os

images = [f"@image/{root}" for root in os.environ.get("IMAGE_ROOTS", "").split(":") if root]
