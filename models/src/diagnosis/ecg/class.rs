//! What a beat is: the classes of ANSI/AAMI EC57.

/// A class of ANSI/AAMI EC57.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub enum BeatClass {
    /// From the sinus node or the junction in its time, bundle branch blocks included.
    Normal,
    /// A supraventricular ectopic beat.
    Supraventricular,
    /// A ventricular ectopic beat.
    Ventricular,
    /// A ventricular beat and a normal one in one.
    Fusion,
    /// Paced, or it cannot be told.
    Unknown,
}

/// The classes that the network tells apart, in the order of its outputs.
pub const CLASSES: [BeatClass; 4] =
    [BeatClass::Normal, BeatClass::Supraventricular, BeatClass::Ventricular, BeatClass::Fusion];

impl BeatClass {
    /// N, S, V, F or Q.
    pub const fn letter(self) -> char {
        match self {
            Self::Normal => 'N',
            Self::Supraventricular => 'S',
            Self::Ventricular => 'V',
            Self::Fusion => 'F',
            Self::Unknown => 'Q',
        }
    }

    /// The class of a beat annotation of the WFDB format; `None` for annotations that are no beat.
    pub const fn of_annotation(code: u8) -> Option<Self> {
        // The codes of `ecgcodes.h`: normal, bundle branch blocks and escapes; atrial, junctional and supraventricular
        // premature; ventricular premature, escape and R-on-T; fusion; paced and unclassified.
        match code {
            1 | 2 | 3 | 11 | 25 | 34 => Some(Self::Normal),
            4 | 7 | 8 | 9 | 35 => Some(Self::Supraventricular),
            5 | 10 | 41 => Some(Self::Ventricular),
            6 => Some(Self::Fusion),
            12 | 13 | 30 | 38 => Some(Self::Unknown),
            _ => None,
        }
    }

    /// Its place among the network's outputs; `None` for [`BeatClass::Unknown`].
    pub fn output(self) -> Option<usize> {
        CLASSES.iter().position(|class| *class == self)
    }
}
