"""What the server's modules need to say of themselves: Maven has their jars, not their descriptors and policies."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent


@dataclass(frozen=True)
class Module:
    """
    One folder below ``modules/``.

    :param roots: Maven coordinates ``group:artifact`` of its own jars; what these depend on belongs to it too.
    :param plugin: The name of the class, fully qualified.
    :param extends: Modules whose classes this one's can see.
    :param permissions: What the security manager of OpenSearch 2 lets it do, in the policy language of Java.
    """

    name: str
    roots: tuple[str, ...]
    plugin: str
    extends: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()

    def descriptor(self, version: str) -> str:
        """Return the text of ``plugin-descriptor.properties``."""
        return dedent(
            f"""\
            name={self.name}
            description={self.name}
            version={version}
            opensearch.version={version}
            java.version=11
            classname={self.plugin}
            extended.plugins={",".join(self.extends)}
            has.native.controller=false
            """
        )

    def policy(self) -> str | None:
        """Return the text of ``plugin-security.policy``, or ``None`` where it would be empty."""
        if not self.permissions:
            return None
        lines = "\n".join(f"  permission {permission};" for permission in self.permissions)
        return f"grant {{\n{lines}\n}};\n"


_SOCKETS = (
    'java.net.SocketPermission "*", "accept,connect,listen,resolve"',
    'java.net.NetPermission "getProxySelector"',
)
_NETTY = (
    'java.io.FilePermission "/proc/sys/net/core/somaxconn", "read"',
    'java.util.PropertyPermission "*", "read,write"',
    # Without these two its threads cannot be ended, and the node takes 50 s to stop.
    'java.lang.RuntimePermission "setContextClassLoader"',
    'java.lang.RuntimePermission "getClassLoader"',
    *_SOCKETS,
)
_PAINLESS = (
    'java.lang.RuntimePermission "createClassLoader"',
    'java.lang.RuntimePermission "getClassLoader"',
)


def modules(major: int) -> tuple[Module, ...]:
    """Return the modules of a node; from 3 on their classes and one of their jars have other names."""
    kind = "Plugin" if major < 3 else "ModulePlugin"
    group = "org.opensearch.plugin:"
    netty: tuple[str, ...] = ("org.opensearch.plugin:transport-netty4-client",)
    if major >= 3:
        netty += ("org.opensearch:opensearch-netty4",)
    found = (
        Module("transport-netty4", netty, f"org.opensearch.transport.Netty4{kind}", permissions=_NETTY),
        Module(
            "lang-painless",
            (f"{group}lang-painless",),
            f"org.opensearch.painless.Painless{kind}",
            permissions=_PAINLESS,
        ),
        Module(
            "analysis-common",
            (f"{group}analysis-common",),
            f"org.opensearch.analysis.common.CommonAnalysis{kind}",
            extends=("lang-painless",),
        ),
        Module("mapper-extras", (f"{group}mapper-extras-client",), f"org.opensearch.index.mapper.MapperExtras{kind}"),
        Module(
            "ingest-common",
            (f"{group}ingest-common",),
            f"org.opensearch.ingest.common.IngestCommon{kind}",
            extends=("lang-painless",),
        ),
        Module(
            "reindex",
            (f"{group}reindex-client",),
            f"org.opensearch.index.reindex.Reindex{kind}",
            permissions=_SOCKETS,
        ),
    )
    if major < 3:
        return found
    grpc = Module("transport-grpc", (f"{group}transport-grpc",), "org.opensearch.transport.grpc.GrpcPlugin")
    return (*found, grpc)
