"""Images, by their root directories. As root: `IMAGE_ROOTS=/a/root:/another pyinfra inventories/golden.py deploy.py`

Settings come from group_data/ and `--data`, as for nodes. See docs/how-to/golden-image.md.
"""

import os

images = [f"@image/{root}" for root in os.environ.get("IMAGE_ROOTS", "").split(":") if root]
