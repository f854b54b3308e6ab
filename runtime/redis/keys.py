"""Every Redis key and channel, each by one function. No other module builds a key.

All keys of a session share one hash tag, that of its partition, so that one script can reach them all on a node of a
cluster.
"""

from base64 import urlsafe_b64encode
from hashlib import sha256
from zlib import crc32

from runtime.codes import partition_of

TAGS = (
    *("10", "12", "11", "13", "69", "c0", "68", "c1", "29", "ac", "28", "ab", "b", "d", "c", "a"),
    *("cc", "ca", "cb", "cd", "1a", "1c", "1d", "1b", "3", "1", "2", "0", "a0", "49", "a1", "48"),
    *("18", "bb", "19", "bc", "61", "63", "60", "62", "21", "23", "20", "22", "58", "fb", "59", "fc"),
    *("6d", "6b", "6a", "6c", "b1", "78", "b0", "79", "f1", "9", "f0", "8", "2d", "2b", "2a", "2c"),
)
"""The hash tags by partition. For every k, the first 2^k fall into 2^k equal ranges of the 16 384 slots."""

GROUP = "workers"
"""The consumer group of every `commands` stream."""


class Keys:
    """The keys of one deployment.

    With a lifetime: sessions, login codes, tokens, families, outcomes, workers, API processes, counters. Permanent: the
    streams `commands` (its length is the backlog), `events` (trimmed by age) and `dead-letters` (trimmed by length),
    the index `deadlines`, and projects with their origins.
    """

    def __init__(self, prefix: str, partitions: int) -> None:
        self.prefix = prefix
        self.partitions = range(partitions)
        self._roots = tuple(f"{prefix}:{{{TAGS[partition]}}}" for partition in self.partitions)
        self._of_session = {f"{partition:02x}": root for partition, root in enumerate(self._roots)}

    def commands(self, partition: int) -> str:
        """Stream: commands that no worker has decided yet."""
        return f"{self._roots[partition]}:commands"

    def events(self, partition: int) -> str:
        """Stream: the published events."""
        return f"{self._roots[partition]}:events"

    def dead_letters(self, partition: int) -> str:
        """Stream: entries that no worker could decide, with the reason."""
        return f"{self._roots[partition]}:dead-letters"

    def deadlines(self, partition: int) -> str:
        """Sorted set: session ids, scored by deadline."""
        return f"{self._roots[partition]}:deadlines"

    def hints(self, partition: int) -> str:
        """Channel: ids of sessions whose state has changed."""
        return f"{self._roots[partition]}:hints"

    def replies(self, partition: int, api_id: str) -> str:
        """Channel: outcomes of the commands that one API process waits for."""
        return f"{self._roots[partition]}:replies:{api_id}"

    def login(self, digest: bytes) -> str:
        """String: the session that a login code names, with its public sealing key."""
        root = self._roots[self.partition_of_login(digest)]
        return f"{root}:login:{urlsafe_b64encode(digest[:24]).decode()}"

    def session(self, session_id: str) -> str:
        """Hash: the session."""
        return f"{self._of_session[session_id[:2]]}:session:{session_id}"

    def sealed_token(self, session_id: str) -> str:
        """String: the sealed refresh token."""
        return f"{self._of_session[session_id[:2]]}:token:{session_id}"

    def claimable(self, session_id: str) -> str:
        """String: the sealed refresh token of an anonymous subject whose tool began a session that is pending."""
        return f"{self._of_session[session_id[:2]]}:claimable:{session_id}"

    def family(self, family_id: str) -> str:
        """Hash: the family of a minted refresh token. Its id is that of the session which opened it."""
        return f"{self._of_session[family_id[:2]]}:family:{family_id}"

    def successor(self, family_id: str) -> str:
        """String: the newest token of a family, sealed to the one before."""
        return f"{self._of_session[family_id[:2]]}:successor:{family_id}"

    def families(self, partition: int, project_id: str, subject: str) -> str:
        """Sorted set: the ids of a subject's families, scored by the time when they end."""
        return f"{self._roots[partition]}:families:{_of_subject(project_id, subject)}"

    def cutoff(self, partition: int, project_id: str, subject: str) -> str:
        """String: the time when a subject was logged out everywhere. Families opened until then are dead."""
        return f"{self._roots[partition]}:cutoff:{_of_subject(project_id, subject)}"

    def outcome(self, partition: int, command_id: str) -> str:
        """String: what became of one command."""
        return f"{self._roots[partition]}:outcome:{command_id}"

    def worker(self, consumer: str) -> str:
        """String: the latest heartbeat of one worker process."""
        return f"{self.prefix}:worker:{consumer}"

    def master_secrets(self) -> str:
        """Sorted set: what each API process says of its master secrets, by when. Never a secret."""
        return f"{self.prefix}:master-secrets"

    def wrong_codes_of_address(self, address: str) -> str:
        """Counter: recent wrong codes from a client address, in any project."""
        return f"{self.prefix}:{{guesses}}:address:{address}"

    def wrong_codes_with_key(self, project_id: str, key: str) -> str:
        """Counter: recent wrong codes sent with one key of a project."""
        return f"{self.prefix}:{{guesses}}:key:{project_id}:{key}"

    def wrong_codes_in_project(self, project_id: str) -> str:
        """Counter: recent wrong codes in a project."""
        return f"{self.prefix}:{{guesses}}:project:{project_id}"

    def sign_ups_of_address(self, project_id: str, address: str) -> str:
        """Counter: anonymous subjects that a client address recently got in a project."""
        return f"{self.prefix}:{{guesses}}:sign-ups:{project_id}:{address}"

    def sign_ups_in_project(self, project_id: str) -> str:
        """Counter: anonymous subjects that recently began in a project."""
        return f"{self.prefix}:{{guesses}}:sign-ups:{project_id}"

    def initiations_of_address(self, partition: int, project_id: str, address: str) -> str:
        """Counter: sessions that a client address recently initiated in a project."""
        return f"{self._roots[partition]}:initiations:address:{project_id}:{address}"

    def initiations_in_project(self, partition: int, project_id: str) -> str:
        """Counter: sessions recently initiated in a project."""
        return f"{self._roots[partition]}:initiations:project:{project_id}"

    def live_sessions(self, partition: int, project_id: str) -> str:
        """Sorted set: session id by the end of its life, of a project's sessions that have not ended."""
        return f"{self._roots[partition]}:live:{project_id}"

    def live_sessions_of_address(self, partition: int, project_id: str, address: str) -> str:
        """Sorted set: the same, of those that one client address initiated in the project."""
        return f"{self._roots[partition]}:live:{project_id}:{address}"

    def polled(self, session_id: str) -> str:
        """String: exists until a pending session may be polled again."""
        return f"{self._of_session[session_id[:2]]}:polled:{session_id}"

    def audited(self, partition: int, mark: str) -> str:
        """String: exists until an audit event with the same cause may be published again."""
        return f"{self._roots[partition]}:audited:{mark}"

    def audit_events(self, partition: int, project_id: str, type_: str) -> str:
        """Counter: recent audit events of one type in a project."""
        return f"{self._roots[partition]}:audits:{project_id}:{type_}"

    def allowed_origins(self) -> str:
        """Sorted set in lexicographic order: `origin project-id` for each origin that a project allows. Permanent."""
        return f"{self.prefix}:{{projects}}:origins"

    def project(self, project_id: str) -> str:
        """Hash: a project and the digests of its keys. Permanent."""
        return f"{self.prefix}:{{projects}}:project:{project_id}"

    def project_names(self) -> str:
        """Hash: project ids by name. Permanent."""
        return f"{self.prefix}:{{projects}}:names"

    def permanent(self) -> frozenset[str]:
        """Return every key without a TTL, except the hashes of the projects."""
        streams = (self.commands, self.events, self.dead_letters, self.deadlines)
        return frozenset(
            {self.project_names(), self.allowed_origins()} | {key(p) for key in streams for p in self.partitions}
        )

    def partition_of_login(self, digest: bytes) -> int:
        """Return the partition of the session that belongs to a login code, from the code's digest."""
        return int.from_bytes(digest[24:]) % len(self.partitions)

    def partition_of_project(self, project_id: str) -> int:
        """Return the partition whose `events` stream has the events of a project itself."""
        return crc32(project_id.encode()) % len(self.partitions)

    def partition_of(self, session_id: str) -> int:
        """Return the partition of a session."""
        return partition_of(session_id)


def _of_subject(project_id: str, subject: str) -> str:
    return urlsafe_b64encode(sha256(f"{project_id}:{subject}".encode()).digest()[:24]).decode()
