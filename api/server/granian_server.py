"""granian, with an orderly end: requests are answered before a process stops."""

import os

from granian import Granian

from api.server.draining import DRAIN_SIGNAL


class Server(Granian):  # type: ignore[misc, valid-type] # granian chooses the class when it is imported
    """A granian that has its processes answer what they hold before it stops them."""

    def shutdown(self, exit_code: int = 0) -> None:
        """Stop all processes: after SIGTERM or SIGINT, or because one of them ended by itself."""
        for process in self.wrks:
            if process.is_alive():
                # One that does not take the signal yet ends by it, at once; SIGTERM would be lost on it.
                os.kill(process.inner.pid, DRAIN_SIGNAL)
        super().shutdown(exit_code)

    def signal_handler_reload(self, *_: object, **__: object) -> None:
        """Ignore SIGHUP: there is nothing to load anew, and granian would cut off what its old processes hold."""
