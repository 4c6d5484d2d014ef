"""Has a Jupyter server take for activity what people do, not what their pages do.

Read by each server with a GPU share, since its folder is on JUPYTER_CONFIG_PATH. Owns
one setting, to which it adds and from which it takes nothing: what is set in ~/.jupyter
stays. Servers before jupyter_server 2.15 have no such setting, and count all messages.
JupyterLab's way to the GPU service's page is `lab_button`'s.
"""

from jupyter_server.services.kernels.kernelmanager import MappingKernelManager

c = get_config()  # type: ignore[name-defined]  # noqa: F821  # Jupyter's, when it reads

if hasattr(MappingKernelManager, "untracked_message_types"):
    c.MappingKernelManager.untracked_message_types.extend(
        [
            # Widgets, when their page is opened and whenever they say something.
            "comm_open",
            "comm_msg",
            "comm_close",
            # A notebook's page asks for it when it is opened.
            "history_request",
            "history_reply",
            # jupyter-resource-usage, every few seconds.
            "usage_request",
            "usage_reply",
        ]
    )

load_subconfig("lab_button.py")  # type: ignore[name-defined]  # noqa: F821  # likewise
