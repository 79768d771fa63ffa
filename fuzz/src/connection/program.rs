//! Programs for the handler. A packet or a message is a program.

use condor::{Framing, LengthField, Lines, Raw};

/// The most steps of a program.
const STEPS_MAX: usize = 4;

/// What a callback does before it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Sends the bytes of the program.
    Echo,
    /// Sends `len` bytes, shared or copied.
    Send {
        len: usize,
        shared: bool,
    },
    Pause,
    Resume,
    Reframe(Kind),
    /// Sets a timer of this many milliseconds, with this message.
    After(u64, Vec<u8>),
    Cancel(usize),
    PacketTimeout(u64),
    IdleTimeout(Option<u64>),
    EndOutput,
    ExpectWithin(u64),
    ExpectNothing,
    SilenceTimeout(Option<u64>),
}

/// What a callback answers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Continue,
    Echo,
    Send { len: usize, shared: bool },
    Stop,
    SendAndStop,
    Panic,
}

/// A framing, by name.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    U8,
    U16,
    U32,
    Lines,
    Raw,
    /// Two-byte lengths in, one-byte lengths out.
    Mixed,
    /// Two-byte lengths in, nothing out.
    Epmd,
}

/// The longest line.
pub(crate) const LINE_MAX: usize = 80;

impl Kind {
    pub(crate) fn framing(self) -> Framing {
        match self {
            Self::U8 => LengthField::U8.into(),
            Self::U16 => LengthField::U16.into(),
            Self::U32 => LengthField::U32.into(),
            Self::Lines => Lines::new(LINE_MAX).into(),
            Self::Raw => Raw.into(),
            Self::Mixed => Framing::split(LengthField::U16, LengthField::U8),
            Self::Epmd => Framing::split(LengthField::U16, Raw),
        }
    }

    fn read(byte: u8) -> Self {
        use Kind::{Epmd, Lines, Mixed, Raw, U8, U16, U32};
        [U16, U8, U32, Lines, Raw, Mixed, Epmd, U16][usize::from(byte % 8)]
    }
}

/// Reads a program. Bytes that are no program are sent back.
pub(crate) fn program(bytes: &[u8]) -> (Vec<Step>, Answer) {
    let mut steps = Vec::new();
    let mut rest = bytes.iter().copied();
    for _ in 0..STEPS_MAX {
        let Some(code) = rest.next() else { return (steps, Answer::Echo) };
        let mut byte = || rest.next().unwrap_or_default();
        let step = match code {
            1 => Step::Echo,
            2 | 3 => Step::Send { len: length(byte()), shared: code == 3 },
            4 => Step::Pause,
            5 => Step::Resume,
            6 => Step::Reframe(Kind::read(byte())),
            7 => {
                let delay = u64::from(byte());
                steps.push(Step::After(delay, rest.collect()));
                return (steps, Answer::Continue);
            }
            8 => Step::Cancel(byte().into()),
            9 => Step::PacketTimeout(u64::from(byte()) * 3),
            10 => Step::IdleTimeout(Some(u64::from(byte()) * 3).filter(|millis| *millis > 0)),
            11 => return (steps, Answer::Continue),
            12 | 13 => return (steps, Answer::Send { len: length(byte()), shared: code == 13 }),
            14 => return (steps, Answer::Stop),
            15 => return (steps, Answer::SendAndStop),
            16 => return (steps, Answer::Panic),
            17 => Step::EndOutput,
            18 => Step::ExpectWithin(u64::from(byte()) * 3),
            19 => Step::ExpectNothing,
            20 => Step::SilenceTimeout(Some(u64::from(byte()) * 3).filter(|millis| *millis > 0)),
            _ => return (steps, Answer::Echo),
        };
        steps.push(step);
    }
    (steps, Answer::Continue)
}

/// Decodes the length of a packet, short or long, from one byte.
fn length(byte: u8) -> usize {
    match byte {
        0..=127 => byte.into(),
        128..=250 => usize::from(byte - 127) * 400,
        _ => 65_530 + 2 * usize::from(byte - 251),
    }
}

/// The bytes that a [`Step::Send`] sends.
pub(crate) fn filling(len: usize) -> Vec<u8> {
    vec![b'#'; len]
}
