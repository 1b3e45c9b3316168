"""Names of environment variables that are nobody's to give: they change how a process runs, or are Keyfob's own.

Sources: ld.so(8), bash(1) "Shell Variables", the manuals of CPython, Node.js, Perl, Ruby and OpenJDK.
"""

from __future__ import annotations

from typing import Final

_PREFIXES: Final = (
    "LD_",
    "DYLD_",
    "PYTHON",
    "KEYFOB_",
    "BASH_",
    "GCONV_",
    "NPM_CONFIG_",
    "PIP_",
    "UV_",
    "GIT_",
    "PERL",
    "RUBY",
)
_NAMES: Final = frozenset(
    {
        "PATH", "ENV", "IFS", "SHELLOPTS", "BASHOPTS", "PS4", "PROMPT_COMMAND", "CDPATH",
        "NODE_OPTIONS", "NODE_PATH", "NODE_TLS_REJECT_UNAUTHORIZED",
        "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH",
        "OPENSSL_CONF", "SSLKEYLOGFILE", "LOCPATH", "NLSPATH", "HOSTALIASES", "RES_OPTIONS", "GLIBC_TUNABLES",
    }
)  # fmt: skip


def is_reserved_variable(name: str) -> bool:
    """Whether an environment variable changes how a process is run or whom it trusts."""
    upper = name.upper()
    return upper in _NAMES or upper.startswith(_PREFIXES) or upper.endswith("_PROXY")
