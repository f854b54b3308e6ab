"""granian, stopped in order: a process answers its requests before it stops."""

import os

from granian import Granian

from api.server.draining import DRAIN_SIGNAL


class Server(Granian):  # type: ignore[misc, valid-type] # granian chooses the class when it is imported
    """Tells its processes to answer the polls that they hold before it stops them."""

    def shutdown(self, exit_code: int = 0) -> None:
        """Stop all processes, after SIGTERM or SIGINT or because one of them ended by itself."""
        for process in self.wrks:
            if process.is_alive():
                # A process that does not handle it yet is ended by it at once; a SIGTERM would be lost.
                os.kill(process.inner.pid, DRAIN_SIGNAL)
        super().shutdown(exit_code)

    def signal_handler_reload(self, *_: object, **__: object) -> None:
        """Ignore SIGHUP: there is nothing to reload, and granian would cut off the requests of its old processes."""
