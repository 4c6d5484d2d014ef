"""``python -m jupyterhub_gpuworkshop`` is ``gpuworkshop``."""

from jupyterhub_gpuworkshop.cli import main

main()
