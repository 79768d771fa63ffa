"""The `echo` example against other implementations of length prefixes of 1, 2 and 4 bytes."""

import os

from lib import HERE, ROOT, TARGET, Missing, check, demand, run, tool

MEGABYTE = 1 << 20


def echo(scope, width):
    """Starts the example, with a maximum that allows the largest packet of the checks."""
    options = ["--max-packet", MEGABYTE] if width == 4 else []
    _, port = scope.example("echo", "--len", width, *options)
    return port


def sizes(width):
    """Payload lengths to check: the limits of each field, and 1 MB where it fits."""
    return [n for n in (0, 1, 255, 65_535, MEGABYTE) if n < 256**width]


def erlang_check(width):
    @check(f"echo: Erlang gen_tcp {{packet, {width}}}")
    def erlang(scope):
        script = HERE / "peers" / "echo.escript"
        command = [tool("escript", "erlang-base"), script, echo(scope, width), width]
        return run([*command, *sizes(width)]).strip()


def twisted_check(width):
    @check(f"echo: Twisted Int{8 * width}StringReceiver")
    def twisted(scope):
        try:
            import twisted.protocols.basic  # noqa: F401
        except ImportError:
            raise Missing("Twisted is not installed: tests/interop/install") from None
        script = HERE / "peers" / "twisted_echo.py"
        return run(["/usr/bin/python3", script, echo(scope, width), width, *sizes(width)]).strip()


def tokio_check(width):
    @check(f"echo: tokio-util LengthDelimitedCodec, {width} bytes, 1,000 packets pipelined")
    def tokio(scope):
        client = tokio_program("echo_client")
        return run([client, echo(scope, width), width, 1000]).strip()


def netty_check(width):
    @check(f"echo: Netty LengthFieldPrepender({width})")
    def netty(scope):
        parts = ["common", "buffer", "codec", "resolver", "transport"]
        jars = [f"/usr/share/java/netty-{part}.jar" for part in parts]
        for jar in jars:
            if not os.path.exists(jar):
                raise Missing(f"{jar} is missing: tests/interop/install (package libnetty-java)")
        classes = scope.directory / "classes"
        classes.mkdir()
        source = HERE / "peers" / "NettyEcho.java"
        javac = tool("javac", "default-jdk-headless")
        run([javac, "-cp", ":".join(jars), "-d", classes, source])
        java = [tool("java", "default-jdk-headless"), "-cp", ":".join([*jars, str(classes)])]
        return run([*java, "NettyEcho", echo(scope, width), width, *sizes(width)]).strip()


for width in (1, 2, 4):
    erlang_check(width)
for width in (1, 2, 4):
    twisted_check(width)
for width in (1, 2, 4):
    tokio_check(width)
for width in (1, 2, 4):
    netty_check(width)


def tokio_program(name):
    """Builds the programs on tokio, which are a workspace of their own. Returns the path of one."""
    manifest = HERE / "tokio_codec" / "Cargo.toml"
    build = ["cargo", "build", "--release", "--locked", "--manifest-path", manifest]
    run(build, 600, cwd=ROOT, env={**os.environ, "CARGO_TARGET_DIR": str(TARGET)})
    return TARGET / "release" / name


@check("call: packets from the command line")
def call(scope):
    _, port = scope.example("echo", "--len", "2")
    program = TARGET / "release" / "examples" / "call"
    demand(program.exists(), f"{program} is not built")
    printed = run([program, f"127.0.0.1:{port}", "ping", "", "two words"])
    demand(printed == "ping\n\ntwo words\n", f"it printed {printed!r}")
    return "3 packets"
