//! What an operator types: one command a line. Both services have it.

use std::error::Error;
use std::io::{self, BufRead, Write};

use condor::Handle;

const HELP: &str = "stats | limit N | pause | resume | stop";

/// Carries out commands until `stop`, or until the input ends. `stop` returns after the drain.
pub fn operate(
    input: impl BufRead,
    mut output: impl Write,
    handle: &Handle,
    listener: &str,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    for line in input.lines() {
        let line = line?;
        let words: Vec<_> = line.split_whitespace().collect();
        let done = match words[..] {
            ["stats"] => {
                print_counters(&mut output, handle)?;
                continue;
            }
            ["limit", limit] => match limit.parse() {
                Ok(limit) => handle.set_max_connections(listener, limit),
                Err(_) => {
                    writeln!(output, "{limit} is no number")?;
                    continue;
                }
            },
            ["pause"] => handle.pause_accepting(listener),
            ["resume"] => handle.resume_accepting(listener),
            ["stop"] => {
                let report = handle.shutdown()?.wait()?;
                writeln!(output, "{report}")?;
                return Ok(());
            }
            _ => {
                writeln!(output, "{HELP}")?;
                continue;
            }
        };
        // A command that fails must not take the operator's other commands away.
        match done {
            Ok(()) => writeln!(output, "ok")?,
            Err(error) => writeln!(output, "{error}")?,
        }
    }
    Ok(())
}

/// The counters that are not zero.
fn print_counters(output: &mut impl Write, handle: &Handle) -> io::Result<()> {
    for (name, endpoint, stats) in handle.listeners() {
        write!(output, "{name} on {endpoint}:")?;
        for (counter, value) in stats.iter().filter(|(_, value)| *value > 0) {
            write!(output, " {counter}={value}")?;
        }
        writeln!(output)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use condor::testing::Harness;
    use condor::{Action, Context, Handler, ListenerOptions};

    struct Echo;

    impl Handler for Echo {
        type Message = ();

        fn handle_packet<'a>(
            &'a mut self,
            packet: &'a [u8],
            _ctx: &mut Context<'_, ()>,
        ) -> Action<'a> {
            Action::send(packet)
        }
    }

    /// A listener under the simulated clock, its handle, and its name.
    fn listener() -> (Harness<Echo>, Handle, String) {
        let harness = Harness::new(ListenerOptions::port(5555), |_| Echo);
        let (handle, name) = (harness.handle(), harness.listener().name().to_owned());
        (harness, handle, name)
    }

    fn type_in(text: &str, handle: &Handle, name: &str) -> String {
        let mut output = Vec::new();
        operate(text.as_bytes(), &mut output, handle, name).expect("no command fails");
        String::from_utf8(output).expect("text")
    }

    #[test]
    fn a_pause_lets_clients_wait() {
        let (harness, handle, name) = listener();
        assert_eq!(type_in("pause\n", &handle, &name), "ok\n");
        let waits = harness.connect();
        waits.run();
        assert!(!waits.is_accepted());
        assert_eq!(type_in("resume\n", &handle, &name), "ok\n");
        waits.run();
        assert!(waits.is_accepted());
    }

    #[test]
    fn a_lower_limit_ends_no_connection() {
        let (harness, handle, name) = listener();
        let second = harness.connect();
        assert_eq!(type_in("limit 1\n", &handle, &name), "ok\n");
        let third = harness.connect();
        assert!(!third.is_accepted());
        second.packet("still here");
        assert_eq!(second.packets(), [b"still here"]);
        second.peer_closes();
        assert!(!third.is_accepted(), "one is still open");
        harness.peer_closes();
        assert!(third.is_accepted());
    }

    #[test]
    fn mistakes_are_answered() {
        let (_harness, handle, name) = listener();
        assert_eq!(type_in("limit many\n", &handle, &name), "many is no number\n");
        assert!(type_in("limit 0\n", &handle, &name).contains("max_connections is zero"));
        assert_eq!(type_in("halt\n", &handle, &name), format!("{HELP}\n"));
    }

    #[test]
    fn counters_have_names() {
        let (harness, handle, name) = listener();
        harness.packet("one");
        let counters = type_in("stats\n", &handle, &name);
        assert!(counters.contains(" accepted=1 "), "{counters}");
        assert!(counters.contains(" packets_in=1 "), "{counters}");
    }
}
