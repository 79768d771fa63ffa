//! Which process is at the other end of a Unix socket, and which users may connect to one.

use std::fs::{self, Permissions};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::{self, Command};
use std::thread;

use condor::{
    Accepted, Action, Context, Handler, ListenerHandle, ListenerOptions, OptionsError,
    OptionsWarning, PeerCredentials, Reactor, ReactorOptions,
};

use crate::lines::{collect, complaints};
use crate::support::{Client, Server, child, drive, is_child, passes, until};
use crate::unix::{Folder, as_another_user, ask};

/// Answers each packet with the credentials that it sees, and those that its factory saw.
struct Knows(Option<PeerCredentials>);

impl Knows {
    fn new(peer: &Accepted<'_>) -> Self {
        Self(peer.peer_credentials())
    }
}

impl Handler for Knows {
    type Message = ();

    fn handle_packet(&mut self, _: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
        Action::send(format!("{:?} {:?}", ctx.peer_credentials(), self.0))
    }
}

fn start(options: ListenerOptions) -> (Server, ListenerHandle<()>) {
    Server::sharded(2, ReactorOptions::default(), move |starter| {
        starter.handle().start_listener("unix", options, Knows::new).unwrap()
    })
}

/// What `Knows` answers to a process with these numbers.
fn known(uid: u32, gid: u32, pid: u32) -> String {
    let peer = format!("Some(PeerCredentials {{ uid: {uid}, gid: {gid}, pid: Some({pid}) }})");
    format!("{peer} {peer}")
}

/// A number that `id` tells of this process.
fn id(option: &str) -> u32 {
    let output = Command::new("id").arg(option).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// Whether the listener has closed a client, which has sent nothing.
fn is_closed(mut client: &UnixStream) -> bool {
    client.read(&mut [0]).is_ok_and(|count| count == 0)
}

/// Goal: the factory and each callback are told which process is at the other end, for a path and for
/// an abstract name. A TCP peer has no credentials. Method: this process, by the numbers of `id`.
#[test]
fn the_process_of_a_unix_peer_is_told() {
    let name = format!("condor-knows-{}", process::id());
    let folder = Folder::new("knows");
    let (uid, gid) = (id("-u"), id("-g"));
    for abstract_name in [false, true] {
        let options = if abstract_name {
            ListenerOptions::unix_abstract(&name)
        } else {
            ListenerOptions::unix(folder.file())
        };
        let (_server, listener) = start(options);
        let addr = SocketAddr::from_abstract_name(&name).unwrap();
        let client = if abstract_name {
            UnixStream::connect_addr(&addr).unwrap()
        } else {
            UnixStream::connect(folder.file()).unwrap()
        };
        assert_eq!(ask(&client), known(uid, gid, process::id()));
        assert_eq!(ask(&client), known(uid, gid, process::id()));
        listener.stop().unwrap();
    }
    let (_server, listener) = start(ListenerOptions::port(0));
    assert_eq!(Client::connect(listener.local_addr()).ask(b"?"), b"None None");
}

/// Goal: the numbers are those of the peer, not of this process. Method: the test again, in a child
/// process, which is of another user if root runs the test.
#[test]
fn another_process_of_another_user_is_told() {
    const NAME: &str = "credentials::another_process_of_another_user_is_told";
    const PATH: &str = "CONDOR_TEST_PATH";
    if is_child() {
        let client = UnixStream::connect(std::env::var_os(PATH).unwrap()).unwrap();
        let told = ask(&client);
        assert_eq!(told, known(id("-u"), id("-g"), process::id()));
        return;
    }
    let folder = Folder::new("other");
    fs::set_permissions(folder.file().parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    let (_server, _) = start(ListenerOptions::unix(folder.file()).unix_mode(0o666));
    let mut other = as_another_user(NAME).unwrap_or_else(|| child(NAME));
    passes(other.env(PATH, folder.file()));
}

/// Goal: a process that is not in this PID namespace has no number, and its user is told. That is a
/// client on the host of a server in a container. Method: the server is a child process in a namespace
/// of its own. If the system does not allow that, there is no test.
#[test]
fn a_process_of_another_namespace_has_no_number() {
    const NAME: &str = "credentials::a_process_of_another_namespace_has_no_number";
    const PATH: &str = "CONDOR_TEST_PATH";
    if is_child() {
        let path = std::env::var_os(PATH).unwrap();
        let mut reactor = Reactor::new().unwrap();
        let options = ListenerOptions::unix(&path).unix_allow_uids([id("-u")]);
        let listener = reactor.start_listener("unix", options, Knows::new).unwrap();
        drive(&mut reactor, "it has answered", || listener.stats().closed_total() == 1);
        return;
    }
    let unshare = ["--user", "--map-root-user", "--pid", "--fork"];
    if !Command::new("unshare").args(unshare).arg("true").status().is_ok_and(|end| end.success()) {
        return;
    }
    let (folder, test) = (Folder::new("pid"), child(NAME));
    let mut server = Command::new("unshare");
    server.args(unshare).arg(test.get_program()).args(test.get_args()).env(PATH, folder.file());
    for (name, value) in test.get_envs() {
        server.env(name, value.unwrap());
    }
    thread::scope(|scope| {
        scope.spawn(|| passes(&mut server));
        let mut stream = None;
        until("it listens", || {
            stream = UnixStream::connect(folder.file()).ok();
            stream.is_some()
        });
        let told = ask(&stream.unwrap());
        assert_eq!(told.matches("uid: 0, gid: 0, pid: None }").count(), 2, "{told}");
    });
}

/// Goal: a peer whose user is not in the list is closed without a handler and without a byte read,
/// gives its place back, is counted, and has a line that names its user. One whose user is in the list
/// is served. Method: a listener with one place, on two shards and on one, for other users and for
/// ours.
#[test]
fn another_user_is_closed_right_after_accept() {
    let folder = Folder::new("users");
    let (ours, path) = (id("-u"), folder.file());
    let options = ListenerOptions::unix(&path).max_connections(1);
    let (_server, listener) = start(options.clone().unix_allow_uids([ours + 1, ours + 2]));
    for _ in 0..3 {
        assert!(is_closed(&UnixStream::connect(&path).unwrap()));
    }
    until("the last place is free", || listener.stats().refused_uids == 3);
    let stats = listener.stats();
    assert_eq!((stats.accepted, stats.made, stats.open, stats.bytes_in), (3, 0, 0, 0));
    listener.stop().unwrap();
    until("it has ended", || listener.state() == condor::ListenerState::Ended);

    let (_server, listener) = start(options.clone().unix_allow_uids([ours + 1, ours]));
    let served = known(ours, id("-g"), process::id());
    assert_eq!(ask(&UnixStream::connect(&path).unwrap()), served);
    assert_eq!(listener.stats().refused_uids, 0);
    listener.stop().unwrap();
    until("it has ended", || listener.state() == condor::ListenerState::Ended);

    collect();
    let mut reactor = Reactor::new().unwrap();
    let options = options.unix_allow_uids([ours + 1]);
    let listener = reactor.start_listener("unix", options, Knows::new).unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    drive(&mut reactor, "it is refused", || listener.stats().refused_uids == 1);
    let lines = complaints();
    let [(log::Level::Warn, line)] = &lines[..] else { panic!("{lines:?}") };
    let expected = format!(
        "listener \"unix\": peer unix:: refused: uid {ours} is not allowed; add it to \
         unix_allow_uids"
    );
    assert_eq!(*line, expected);
}

/// Gives a connection to the listener, once it has a place.
fn adopt(server: &Server, given: impl Into<OwnedFd>) {
    let mut given = Some(given.into());
    until("a place is free", || match server.handle.adopt("unix", given.take().unwrap()) {
        Ok(()) => true,
        Err(refused) => {
            given = Some(refused.fd);
            false
        }
    });
}

/// Goal: the list holds for connections that a handle gives to the listener, too, and not for TCP
/// peers.
#[test]
fn the_list_holds_for_adopted_connections() {
    let folder = Folder::new("adopted");
    let options = ListenerOptions::unix(folder.file()).max_connections(1);
    let (server, listener) = start(options.unix_allow_uids([id("-u") + 1]));
    for refused in 1..=2 {
        let (given, client) = UnixStream::pair().unwrap();
        adopt(&server, given);
        assert!(is_closed(&client));
        until("it is counted", || listener.stats().refused_uids == refused);
    }
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
    adopt(&server, socket.accept().unwrap().0);
    assert_eq!(Client::from(client).ask(b"?"), b"None None");
    assert_eq!(listener.stats().adopted, 3);
}

/// Goal: a list without users, and one for TCP peers, is an error that says so. An abstract name
/// without a list is a warning that names the cure.
#[test]
fn wrong_lists_are_errors_and_open_names_are_warned_of() {
    let unix = || ListenerOptions::unix_abstract("condor-open");
    let none = unix().unix_allow_uids([]).check().errors;
    assert_eq!(none, [OptionsError::NoUids]);
    assert!(none[0].to_string().starts_with("unix_allow_uids is empty"));
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    for over_tcp in [ListenerOptions::new(addr), ListenerOptions::from_std(socket)] {
        let errors = over_tcp.unix_allow_uids([0]).check().errors;
        assert_eq!(errors, [OptionsError::UidsOverTcp(addr.into())]);
        let text = format!("unix_allow_uids is for Unix sockets, and the listener is on {addr}");
        assert_eq!(errors[0].to_string(), text);
    }

    let warnings = unix().check().warnings;
    let [warning @ OptionsWarning::OpenToAll(name)] = &warnings[..] else { panic!("{warnings:?}") };
    assert_eq!(name.to_string(), "unix:@condor-open");
    let text = warning.to_string();
    assert!(text.contains("unix:@condor-open") && text.contains("set unix_allow_uids"), "{text}");
    assert_eq!(unix().unix_allow_uids([0]).check().warnings, []);
    assert_eq!(ListenerOptions::unix("/run/s").check().warnings, []);
}
