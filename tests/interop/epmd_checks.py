"""`epmd` as the port mapper of real Erlang nodes."""

import os
import shutil
import subprocess

from lib import HOST, check, demand, run, tool, wait_for


@check("epmd: two Erlang nodes find each other and ping")
def ping(scope):
    erl = tool("erl", "erlang-base")
    mapper, port = scope.example("epmd")
    environment = {**os.environ, "ERL_EPMD_PORT": str(port), "HOME": str(scope.directory)}
    local = ["-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-start_epmd", "false"]
    node = [erl, "-noinput", *local, "-setcookie", "interop"]
    first = scope.start(*node, "-name", f"first@{HOST}", env=environment)
    names = lambda: run([epmd_tool(), "-port", port, "-names"], 20)  # noqa: E731
    wait_for(lambda: "first" in names(), 20, "registration of the first node")
    script = f"io:format(\"~p~n\", [net_adm:ping('first@{HOST}')]), halt()."
    printed = run([*node, "-name", f"second@{HOST}", "-eval", script], 60, env=environment)
    demand(printed.strip() == "pong", f"the ping printed {printed!r}")
    # A name is registered as long as its connection lives, and free after that.
    wait_for(lambda: "second" not in names(), 10, "end of the second node's registration")
    taken = subprocess.run(
        [*node, "-name", f"first@{HOST}", "-eval", "halt(7)."],
        env=environment, capture_output=True, timeout=60, text=True,
    )
    demand(taken.returncode != 7, "a name was registered twice")
    kill = [epmd_tool(), "-port", str(port), "-kill"]
    refused = subprocess.run(kill, capture_output=True, timeout=20, text=True)
    demand("Killed" not in refused.stdout, f"epmd obeyed the kill command: {refused}")
    demand("first" in names(), "the refused kill command has removed a name")
    first.popen.kill()
    first.popen.wait()
    wait_for(lambda: "first" not in names(), 10, "end of the first node's registration")
    demand(mapper.stop() == 0, f"epmd failed\n{mapper.output()}")
    return "pong; names, taken names, refused kill"


def epmd_tool():
    """Erlang's own epmd, used only as a client. On Debian it may be outside the PATH."""
    found = shutil.which("epmd")
    return found or tool("epmd", "erlang-base")
