//! A row: a sentence, and what it means in packets.

use lb_common::packet::Fate;

use super::{Desired, Family, Frame, World};

/// What a program answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To the stack: `XDP_PASS`, `TC_ACT_OK` or `TC_ACT_UNSPEC`.
    Pass,
    /// `XDP_DROP` or `TC_ACT_SHOT`.
    Drop,
    /// Out of the device that it came by: `XDP_TX`.
    Tx,
    /// Out of some device: `XDP_REDIRECT` or `TC_ACT_REDIRECT`.
    Redirect,
}

use Verdict::{Drop, Pass};

/// What the packet has to be then.
pub(crate) enum Out {
    /// As it came.
    Same,
    /// This one, byte by byte.
    Is(Vec<u8>),
    /// One of these: where the choice is by a hash that the row does not foretell.
    Any(Vec<Vec<u8>>),
    /// This one, handed over to `tc_card_in` to leave by a device.
    HandedOver(&'static str, Vec<u8>),
    /// It is gone.
    Gone,
}

/// As much metadata as there is room for: 256 bytes, less what the kernel keeps there of a frame (`struct xdp_frame`).
const ROOM: usize = 216;

type Change = Box<dyn Fn(&mut Desired)>;
type Then = Box<dyn Fn(&mut World)>;

/// One step before the packet of a row.
pub(super) enum Given {
    Desired(Change),
    Packet(&'static str, Vec<u8>),
    Do(Then),
}

/// One row of the table.
pub(crate) struct Row {
    pub(crate) says: String,
    pub(crate) program: &'static str,
    pub(crate) family: Family,
    pub(super) given: Vec<Given>,
    pub(super) packet: Vec<u8>,
    /// Bytes of metadata that it comes with.
    pub(super) metadata: usize,
    /// Whether something has to be waited for.
    pub(crate) waits: bool,
    /// Whether all of it has to happen within one second of the programs' clock.
    pub(super) at_once: bool,
    pub(super) verdict: Verdict,
    pub(super) out: Out,
    pub(crate) fate: Option<Fate>,
    pub(super) then: Option<Then>,
}

/// Begins a row about a program. Its packet follows by [`Row::takes`].
pub(crate) fn row(program: &'static str, family: Family, says: impl Into<String>) -> Row {
    Row {
        says: says.into(),
        program,
        family,
        given: Vec::new(),
        packet: Vec::new(),
        metadata: 0,
        waits: false,
        at_once: false,
        verdict: Pass,
        out: Out::Same,
        fate: None,
        then: None,
    }
}

#[expect(clippy::wrong_self_convention, reason = "a row reads as a sentence")]
impl Row {
    /// What it is called when it does not hold.
    pub(super) fn name(&self) -> String {
        format!("{}, {}: {}", self.program, self.family.as_str(), self.says)
    }

    /// What is desired is changed for this row.
    pub(crate) fn desired(mut self, change: impl Fn(&mut Desired) + 'static) -> Self {
        self.given.push(Given::Desired(Box::new(change)));
        self
    }

    /// Anything else that is so before the packet comes.
    pub(crate) fn given(mut self, job: impl Fn(&mut World) + 'static) -> Self {
        self.given.push(Given::Do(Box::new(job)));
        self
    }

    /// A packet that the same program saw before.
    pub(crate) fn after(self, frame: &Frame) -> Self {
        let program = self.program;
        self.after_by(program, frame)
    }

    /// A packet that another program saw before.
    pub(crate) fn after_by(mut self, program: &'static str, frame: &Frame) -> Self {
        self.given.push(Given::Packet(program, frame.bytes()));
        self
    }

    /// The packet.
    pub(crate) fn takes(self, frame: &Frame) -> Self {
        self.takes_bytes(frame.bytes())
    }

    /// The packet, if no frame can be meant like this.
    pub(crate) fn takes_bytes(mut self, bytes: Vec<u8>) -> Self {
        self.packet = bytes;
        self
    }

    /// There is no room before the packet, neither for metadata nor for another head, as with some drivers.
    pub(crate) fn without_room(mut self) -> Self {
        self.metadata = ROOM;
        self
    }

    /// Backends that nobody desires any more are out of the maps.
    pub(crate) fn settled(mut self) -> Self {
        self.waits = true;
        self.given(World::settle)
    }

    /// All of it happens within one second, which flows are counted for.
    pub(crate) fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    /// It is passed as it came, and counts for nothing: none of ours.
    pub(crate) fn is_not_ours(self) -> Self {
        self
    }

    /// It is passed as it came.
    pub(crate) fn is_passed(mut self, fate: Fate) -> Self {
        self.fate = Some(fate);
        self
    }

    /// It becomes another one.
    pub(crate) fn becomes(mut self, verdict: Verdict, frame: &Frame, fate: Fate) -> Self {
        (self.verdict, self.out, self.fate) = (verdict, Out::Is(frame.bytes()), Some(fate));
        self
    }

    /// It becomes one of these.
    pub(crate) fn becomes_one_of(mut self, verdict: Verdict, frames: &[Frame], fate: Fate) -> Self {
        let frames = frames.iter().map(Frame::bytes).collect();
        (self.verdict, self.out, self.fate) = (verdict, Out::Any(frames), Some(fate));
        self
    }

    /// It becomes these bytes.
    pub(crate) fn becomes_bytes(mut self, verdict: Verdict, bytes: Vec<u8>, fate: Fate) -> Self {
        (self.verdict, self.out, self.fate) = (verdict, Out::Is(bytes), Some(fate));
        self
    }

    /// It becomes another one, which the stack is to send by a device.
    pub(crate) fn is_handed_over(mut self, device: &'static str, frame: &Frame) -> Self {
        (self.verdict, self.out) = (Pass, Out::HandedOver(device, frame.bytes()));
        self.fate = Some(Fate::Stack);
        self
    }

    /// It is dropped.
    pub(crate) fn is_dropped(mut self, fate: Fate) -> Self {
        (self.verdict, self.out, self.fate) = (Drop, Out::Gone, Some(fate));
        self
    }

    /// What else must be so then; panics if it is not.
    pub(crate) fn then(mut self, check: impl Fn(&mut World) + 'static) -> Self {
        self.then = Some(Box::new(check));
        self
    }
}
