"""Logging a subject out everywhere, at once and however many logins there are."""

from tokens.store.recording import Subjects


class LoggingOut:
    """Logs subjects out."""

    def __init__(self, subjects: Subjects) -> None:
        self._subjects = subjects

    async def everywhere(self, project_id: str, subject: str) -> int:
        """Kill all refresh tokens of a subject, and its logins that are completed and not picked up yet.

        Returns the time of the cut-off (Redis time in milliseconds) when it holds in every partition, so answer success
        only then. It needs no worker. It can be repeated; a subject that has no login is no error. Access tokens that
        were minted before live on until they expire, except where they are introspected.

        Raises:
            RedisError: a partition could not be written: the caller should ask again.

        """
        return await self._subjects.log_out(project_id, subject)
