"""Fields that several requests of this interface have."""

from typing import Annotated

import msgspec
from msgspec import Meta

from runtime.codes import CODE_VERIFIER_SHAPE, POLLING_CODE_SHAPE

PollingCode = Annotated[
    str,
    Meta(
        description="The tool's secret, from initiate.",
        extra_json_schema={"pattern": f"^{POLLING_CODE_SHAPE}$"},
    ),
]
CodeVerifier = (
    Annotated[
        str,
        Meta(
            description="What the `code_challenge` of initiate was made from. It comes with every request for a "
            "session that has one, and with no other.",
            extra_json_schema={"pattern": f"^{CODE_VERIFIER_SHAPE}$"},
        ),
    ]
    | msgspec.UnsetType
)
