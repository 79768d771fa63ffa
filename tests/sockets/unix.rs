//! Listeners on Unix sockets: paths and their files, abstract names, inherited sockets.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;

use condor::{
    Action, Context, Error, Handler, ListenerHandle, ListenerOptions, OptionsError, Reactor,
    ReactorOptions,
};

use crate::support::{Server, child, is_child, passes, until};

/// A directory of this test's own, which goes with it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("condor-{test}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("s")
    }

    /// What is in the folder.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Answers a packet with what it knows of the peer.
struct Tells;

impl Handler for Tells {
    type Message = ();

    fn handle_packet(&mut self, packet: &[u8], ctx: &mut Context<'_, ()>) -> Action<'_> {
        let packet = String::from_utf8_lossy(packet);
        Action::send(format!("{packet} {} {}", ctx.peer_addr(), ctx.local_addr().unwrap()))
    }
}

fn start(options: ListenerOptions) -> Result<(Server, ListenerHandle<()>), Error> {
    let (server, started) = Server::sharded(1, ReactorOptions::default(), move |starter| {
        starter.handle().start_listener("unix", options, |_: &condor::Accepted<'_>| Tells)
    });
    started.map(|listener| (server, listener))
}

pub(crate) fn ask(mut client: &UnixStream) -> String {
    client.write_all(b"\0\x01?").unwrap();
    let mut length = [0; 2];
    client.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    client.read_exact(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

/// Goal: a listener serves at its path, says so, and removes the path at its end, but not what has
/// taken its place. A client that has connected is served, whatever becomes of the path. Method: what
/// another process may do to the path in the meantime.
#[test]
fn a_path_is_served_and_removed_at_the_end() {
    type Change = fn(&Path);
    let changes: [(Change, &[&str]); 4] = [
        (|_| (), &[]),
        (|path| fs::remove_file(path).unwrap(), &[]),
        (
            |path| {
                fs::rename(path, path.with_extension("moved")).unwrap();
                fs::write(path, "another's").unwrap();
            },
            &["s", "s.moved"],
        ),
        (
            |path| {
                fs::remove_file(path).unwrap();
                // A socket stays at its path when it is closed.
                drop(UnixListener::bind(path).unwrap());
            },
            &["s"],
        ),
    ];
    for (change, left) in changes {
        let folder = Folder::new("served");
        let (server, listener) = start(ListenerOptions::unix(folder.file())).unwrap();
        let printed = format!("unix:{}", folder.file().display());
        assert_eq!(listener.local_addr().to_string(), printed);
        let client = UnixStream::connect(folder.file()).unwrap();
        assert_eq!(ask(&client), format!("? unix: {printed}"));
        change(&folder.file());
        assert_eq!(ask(&client), format!("? unix: {printed}"));
        listener.stop().unwrap();
        until("it has ended", || listener.state() == condor::ListenerState::Ended);
        drop((client, server));
        let mut names = folder.names();
        names.sort_unstable();
        assert_eq!(names, left);
    }
}

/// Goal: a stale socket is replaced. A live one, another type of socket and every other kind of file
/// stay as they are, and the error says what is there.
#[test]
fn only_a_stale_socket_is_replaced() {
    let folder = Folder::new("stale");
    let path = folder.file();
    drop(UnixListener::bind(&path).unwrap());
    let (server, _) = start(ListenerOptions::unix(&path)).unwrap();
    assert!(ask(&UnixStream::connect(&path).unwrap()).starts_with("? "));
    assert_eq!(folder.names(), ["s"], "nothing is left beside it");

    let again = start(ListenerOptions::unix(&path));
    assert!(matches!(again, Err(Error::AddressInUse { .. })));
    assert!(ask(&UnixStream::connect(&path).unwrap()).starts_with("? "));
    drop(server);
    let datagrams = UnixDatagram::bind(&path).unwrap();
    assert!(matches!(start(ListenerOptions::unix(&path)), Err(Error::AddressInUse { .. })));
    drop(datagrams);
    fs::remove_file(&path).unwrap();

    type Make = fn(&Path);
    let kinds: [(&str, Make); 4] = [
        ("a regular file", |path| fs::write(path, "text").unwrap()),
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a symbolic link", |path| symlink("elsewhere", path).unwrap()),
        ("a pipe", |path| {
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        }),
    ];
    for (kind, make) in kinds {
        make(&path);
        let before = fs::symlink_metadata(&path).unwrap();
        let Err(error) = start(ListenerOptions::unix(&path)) else { panic!("{kind}") };
        let text = error.to_string();
        assert!(text.contains(kind) && text.contains("remove it"), "{text}");
        let after = fs::symlink_metadata(&path).unwrap();
        assert_eq!(before.file_type(), after.file_type());
        let removed = if kind == "a directory" { fs::remove_dir } else { fs::remove_file }(&path);
        removed.unwrap();
    }
}

/// Goal: of many starts at the same time over a stale socket, one serves, and no other one takes its
/// place. Method: eight threads, many times.
#[test]
fn starts_at_the_same_time_do_not_replace_each_other() {
    const STARTS: usize = 8;
    let folder = Folder::new("race");
    let path = folder.file();
    for _ in 0..20 {
        let _ = fs::remove_file(&path);
        drop(UnixListener::bind(&path).unwrap());
        let (barrier, done) = (Barrier::new(STARTS), Barrier::new(STARTS));
        let served = thread::scope(|scope| {
            let starts: Vec<_> = (0..STARTS)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        let mut reactor = Reactor::new().unwrap();
                        let options = ListenerOptions::unix(&path);
                        let started = reactor.start_listener("unix", options, |_| Tells);
                        done.wait();
                        let used = matches!(started, Err(Error::AddressInUse { .. }));
                        assert!(started.is_ok() || used, "{:?}", started.err());
                        let waits = UnixStream::connect(&path).is_ok();
                        assert!(waits, "the one that serves has lost its path");
                        // None ends before all have looked.
                        done.wait();
                        started.is_ok()
                    })
                })
                .collect();
            starts.into_iter().filter_map(|start| start.join().unwrap().then_some(())).count()
        });
        assert_eq!(served, 1);
        assert_eq!(folder.names(), Vec::<String>::new());
    }
}

/// Goal: a socket that has its path and does not listen yet is not taken for a stale one. Method: the
/// function for options of the first start is a second start of the same path.
#[test]
fn a_start_does_not_take_the_path_of_one_that_has_begun() {
    fn path() -> PathBuf {
        std::env::temp_dir().join(format!("condor-begun-{}/s", std::process::id()))
    }
    let folder = Folder::new("begun");
    assert_eq!(folder.file(), path());
    let first = ListenerOptions::unix(path()).configure_socket(|_| {
        let mut second = Reactor::new().unwrap();
        let started = second.start_listener("second", ListenerOptions::unix(path()), |_| Tells);
        // It serves until the end of the process, if it has started.
        std::mem::forget(second);
        started.map(drop).map_err(std::io::Error::other)
    });
    let mut reactor = Reactor::new().unwrap();
    let started = reactor.start_listener("first", first, |_| Tells).map(drop);
    assert!(matches!(started, Err(Error::AddressInUse { .. })), "{started:?}");
    UnixStream::connect(path()).expect("the second one listens at its path");
}

/// Goal: the path has the mode that was asked for, whatever the umask is. Method: the test again, in a
/// process with each umask.
#[test]
fn the_mode_is_as_asked_for_under_every_umask() {
    const NAME: &str = "unix::the_mode_is_as_asked_for_under_every_umask";
    if !is_child() {
        for umask in ["000", "022", "077"] {
            let test = child(NAME);
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("umask {umask}; exec \"$0\" \"$@\""));
            shell.arg(test.get_program()).args(test.get_args());
            for (name, value) in test.get_envs() {
                shell.env(name, value.unwrap());
            }
            passes(&mut shell);
        }
        return;
    }
    let folder = Folder::new("mode");
    for mode in [None, Some(0o600), Some(0o660), Some(0o666), Some(0o777), Some(0o200)] {
        let options = ListenerOptions::unix(folder.file());
        let options = mode.map_or_else(|| options.clone(), |mode| options.clone().unix_mode(mode));
        for stale in [false, true] {
            if stale {
                drop(UnixListener::bind(folder.file()).unwrap());
            }
            let (server, _) = start(options.clone()).unwrap();
            let found = fs::metadata(folder.file()).unwrap();
            assert!(found.file_type().is_socket());
            assert_eq!(found.permissions().mode() & 0o777, mode.unwrap_or(0o600));
            drop(server);
        }
    }
}

/// Goal: the access rights keep other users out, and a user who may not write in the directory gets an
/// error that says so. Method: the test again, in a child process of another user if root runs it; else
/// a directory that is read-only.
#[test]
fn access_rights_are_those_of_the_system() {
    const NAME: &str = "unix::access_rights_are_those_of_the_system";
    const FOLDER: &str = "CONDOR_TEST_FOLDER";
    let refused = |folder: &Path| {
        let started = start(ListenerOptions::unix(folder.join("new"))).map(drop);
        assert!(matches!(started, Err(Error::Permission { .. })), "{started:?}");
    };
    if is_child() {
        let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
        let error = UnixStream::connect(folder.join("ours")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        let all = UnixStream::connect(folder.join("all")).unwrap();
        assert!(ask(&all).starts_with("? "));
        return refused(&folder);
    }
    let folder = Folder::new("rights");
    let rights = |mode| fs::set_permissions(&folder.0, Permissions::from_mode(mode)).unwrap();
    rights(0o755);
    let Some(mut other) = as_another_user(NAME) else {
        rights(0o555);
        refused(&folder.0);
        return rights(0o755);
    };
    let (_server, _) = start(ListenerOptions::unix(folder.0.join("ours"))).unwrap();
    let (_other, _) = start(ListenerOptions::unix(folder.0.join("all")).unix_mode(0o666)).unwrap();
    passes(other.env(FOLDER, &folder.0));
    let mut left = folder.names();
    left.sort_unstable();
    assert_eq!(left, ["all", "ours"]);
}

/// The test again in a process of another user, if root runs it.
pub(crate) fn as_another_user(test: &str) -> Option<Command> {
    const OTHER: u32 = 12_345;
    // It belongs to the user that has made it.
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let test = child(test);
    // Another user may be unable to reach the program by its path.
    let program = || {
        let mut other = Command::new("/proc/self/exe");
        other.uid(OTHER).gid(OTHER);
        other
    };
    // A container may have no other user, or keep it from the program or from the folders of tests.
    let reaches = |mut command: Command| {
        command.stdout(Stdio::null()).status().is_ok_and(|end| end.success())
    };
    let mut looks = Command::new("test");
    looks.arg("-x").arg(std::env::temp_dir()).uid(OTHER).gid(OTHER);
    let mut lists = program();
    lists.arg("--list");
    if !reaches(lists) || !reaches(looks) {
        return None;
    }
    let mut other = program();
    other.args(test.get_args());
    for (name, value) in test.get_envs() {
        other.env(name, value.unwrap());
    }
    Some(other)
}

/// Goal: what cannot be a path is found by the check; what the system refuses is an error of the start
/// that names the path. Nothing is left behind.
#[test]
fn wrong_paths_are_named() {
    let folder = Folder::new("wrong");
    // A path of `len` bytes.
    let of = |len: usize| folder.0.join("x".repeat(len - folder.0.as_os_str().len() - 1));
    let (longest, long) = (of(107), of(108));
    let (server, listener) = start(ListenerOptions::unix(&longest)).unwrap();
    let served = format!("? unix: {}", listener.local_addr());
    assert_eq!(ask(&UnixStream::connect(&longest).unwrap()), served);
    drop(server);
    let error = &ListenerOptions::unix(&long).check().errors[0];
    assert!(error.to_string().contains("108") && error.to_string().contains("107"), "{error}");
    let nul = folder.0.join(std::ffi::OsStr::from_bytes(b"a\0b"));
    for path in [long, nul, PathBuf::new()] {
        let options = ListenerOptions::unix(path);
        assert!(matches!(options.check().errors[..], [OptionsError::Address(_)]));
        assert!(matches!(start(options), Err(Error::Options { .. })));
    }
    let options = ListenerOptions::unix(folder.file()).unix_mode(0o1777);
    assert_eq!(options.check().errors, [OptionsError::UnixMode(0o1777)]);
    assert_eq!(options.check().errors[0].to_string(), "unix_mode of 0o1777 is above 0o777");
    let missing = folder.0.join("no/such/s");
    let Err(error) = start(ListenerOptions::unix(&missing)) else { panic!("it has no directory") };
    assert!(error.to_string().contains(&format!("unix:{}", missing.display())), "{error}");
    assert_eq!(folder.names(), Vec::<String>::new());
}

/// Goal: abstract names are served, also with a NUL inside; the name of each client is told.
#[test]
#[cfg(target_os = "linux")]
fn abstract_names_and_named_clients_are_told() {
    use socket2::{Domain, SockAddr, Socket, Type};
    use std::os::linux::net::SocketAddrExt;
    let name = format!("condor\0{}", std::process::id());
    let (server, listener) = start(ListenerOptions::unix_abstract(&name)).unwrap();
    let addr = SocketAddr::from_abstract_name(&name).unwrap();
    let printed = listener.local_addr().to_string();
    assert_eq!(printed, format!("unix:@condor\\x00{}", std::process::id()));
    assert_eq!(ask(&UnixStream::connect_addr(&addr).unwrap()), format!("? unix: {printed}"));
    assert!(matches!(
        start(ListenerOptions::unix_abstract(&name)),
        Err(Error::AddressInUse { .. })
    ));

    let folder = Folder::new("named");
    let own = PathBuf::from(format!("\0{name}-client"));
    for client_name in [folder.file(), own] {
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        client.bind(&SockAddr::unix(&client_name).unwrap()).unwrap();
        client.connect(&SockAddr::unix(format!("\0{name}")).unwrap()).unwrap();
        let client = UnixStream::from(OwnedFd::from(client));
        let told = client_name.to_str().unwrap().replacen('\0', "@", 1).replace('\0', "\\x00");
        assert_eq!(ask(&client), format!("? unix:{told} {printed}"));
    }
    drop(server);
}

/// Goal: a client whose own path is as long as the kernel allows, 108 bytes, is served and told by it.
/// Method: a client in C, because Rust's libraries refuse such a path.
#[test]
fn the_longest_path_of_a_client_is_told() {
    const CLIENT: &str = r#"
        #include <string.h>
        #include <sys/socket.h>
        #include <sys/un.h>
        #include <unistd.h>

        int main(int count, char **args) {
            struct sockaddr_un own = {AF_UNIX}, server = {AF_UNIX};
            unsigned char len[2];
            char answer[512];
            int fd = socket(AF_UNIX, SOCK_STREAM, 0);
            memcpy(own.sun_path, args[1], sizeof own.sun_path);
            strncpy(server.sun_path, args[2], sizeof server.sun_path - 1);
            if (count != 3 || bind(fd, (struct sockaddr *)&own, sizeof own)) return 1;
            if (connect(fd, (struct sockaddr *)&server, sizeof server)) return 2;
            if (write(fd, "\0\1?", 3) != 3 || recv(fd, len, 2, MSG_WAITALL) != 2) return 3;
            size_t size = len[0] * 256 + len[1];
            if (size > sizeof answer || recv(fd, answer, size, MSG_WAITALL) != size) return 4;
            return write(1, answer, size) != size;
        }
    "#;
    let folder = Folder::new("longest");
    let (source, client) = (folder.0.join("client.c"), folder.0.join("client"));
    fs::write(&source, CLIENT).unwrap();
    let compiled = Command::new("cc").arg("-o").args([&client, &source]).status();
    assert!(compiled.expect("a C compiler").success());
    let own = folder.0.join("x".repeat(108 - folder.0.as_os_str().len() - 1));
    let (_server, listener) = start(ListenerOptions::unix(folder.file())).unwrap();
    let end = Command::new(client).args([&own, &folder.file()]).output().unwrap();
    let told = format!("? unix:{} {}", own.display(), listener.local_addr());
    assert_eq!(String::from_utf8_lossy(&end.stdout), told, "{}", end.status);
}

/// Goal: an inherited Unix socket is served, and its path stays for the process that made it. A socket
/// of another kind is refused by name.
#[test]
fn an_inherited_socket_keeps_its_path() {
    let folder = Folder::new("inherited");
    let socket = UnixListener::bind(folder.file()).unwrap();
    let given = socket.as_fd().try_clone_to_owned().unwrap();
    let (server, listener) = start(ListenerOptions::from_fd(given)).unwrap();
    let printed = format!("unix:{}", folder.file().display());
    assert_eq!(listener.local_addr().to_string(), printed);
    assert!(ask(&UnixStream::connect(folder.file()).unwrap()).ends_with(&printed));
    drop(server);
    assert_eq!(folder.names(), ["s"]);
    let (stream, _) = UnixStream::pair().unwrap();
    for wrong in [OwnedFd::from(stream), UnixDatagram::unbound().unwrap().into()] {
        let Err(error) = start(ListenerOptions::from_fd(wrong)) else { panic!("it listens?") };
        assert!(error.to_string().contains("not a listening stream socket"), "{error}");
    }
}
