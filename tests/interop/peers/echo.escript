#!/usr/bin/env escript
%% echo.escript PORT WIDTH SIZE...: gen_tcp with {packet, WIDTH} sends packets of these sizes and
%% demands them back: one by one, then all in one go.

main([Port, Width | Sizes]) ->
    Options = [binary, {packet, list_to_integer(Width)}, {active, false}, {nodelay, true}],
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, list_to_integer(Port), Options),
    Packets = [packet(list_to_integer(Size)) || Size <- Sizes],
    [begin send(Socket, P), expect(Socket, P) end || P <- Packets],
    Many = lists:append(lists:duplicate(20, Packets)),
    Parent = self(),
    Sender = spawn_link(fun() -> [send(Socket, P) || P <- Many], Parent ! {self(), sent} end),
    [expect(Socket, P) || P <- Many],
    receive {Sender, sent} -> ok end,
    ok = gen_tcp:shutdown(Socket, write),
    {error, closed} = gen_tcp:recv(Socket, 0, 10000),
    io:format("sizes ~s, each 21 times~n", [lists:join(", ", Sizes)]).

packet(Size) ->
    << <<(I rem 251)>> || I <- lists:seq(1, Size) >>.

send(Socket, Packet) ->
    ok = gen_tcp:send(Socket, Packet).

expect(Socket, Packet) ->
    case gen_tcp:recv(Socket, 0, 10000) of
        {ok, Packet} -> ok;
        {ok, Other} -> fail("~b bytes came back and not ~b", [size(Other), size(Packet)]);
        {error, Reason} -> fail("~p instead of ~b bytes", [Reason, size(Packet)])
    end.

fail(Format, Arguments) ->
    io:format(Format ++ "~n", Arguments),
    halt(1).
