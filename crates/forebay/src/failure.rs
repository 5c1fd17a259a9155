//! How the making of one batch fails, and how that is told to the trainer, which may be another process.

use std::any::Any;
use std::fmt;

use forebay_engine::EngineError;
use forebay_engine::layout::Value;

use crate::{BoxError, Error};

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Dataset,
    Panic,
    Mismatch,
    Memory,
    Collate,
    Index,
    InitWorker,
}

impl Class {
    /// Numbered by their places.
    const ALL: [Self; 7] = [
        Self::Dataset,
        Self::Panic,
        Self::Mismatch,
        Self::Memory,
        Self::Collate,
        Self::Index,
        Self::InitWorker,
    ];
}

/// Why a batch could not be made. Where it was being made is the trainer's knowledge.
#[derive(Debug)]
pub struct Failure {
    pub(crate) class: Class,
    pub(crate) index: Option<usize>,
    pub(crate) text: String,
    pub(crate) source: Option<BoxError>,
}

/// So long may each text be that is told where memory is short.
const SHORT_BYTES: usize = 1024;
/// And so many causes.
const FEW_CAUSES: usize = 8;

impl Failure {
    pub(crate) fn new(class: Class, text: impl Into<String>) -> Self {
        Self { class, index: None, text: text.into(), source: None }
    }

    pub(crate) fn because(self, source: impl Into<BoxError>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    pub(crate) fn at(self, index: Option<usize>) -> Self {
        Self { index, ..self }
    }

    /// What a panic said; `what` is as in `the collate panicked`.
    pub(crate) fn panic(what: &str, panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Self::new(Class::Panic, format!("{what}: {}", text.unwrap_or_else(|| "no text".into())))
    }

    /// An error that user code returned while it collated: often one that we gave it.
    pub(crate) fn of_collate(error: BoxError) -> Self {
        match error.downcast::<Error>() {
            Ok(error) => error.into_failure(),
            Err(error) => Self::new(Class::Collate, "the batch could not be collated").because(error),
        }
    }

    /// An error that user code returned for a batch that was collated.
    pub(crate) fn of_opening(error: BoxError) -> Self {
        Self::new(Class::Collate, "the batch could not be opened").because(error)
    }

    /// The same in texts only, for what cannot be handed over itself.
    pub(crate) fn told(&self) -> Self {
        let source = self.source.as_deref().map(|source| RemoteError::of(source).into());
        Self { class: self.class, index: self.index, text: self.text.clone(), source }
    }

    /// As [`told`](Self::told), in so few bytes that every slot has room for it.
    pub(crate) fn short(&self) -> Self {
        let causes: Vec<_> = self.causes().into_iter().take(FEW_CAUSES).map(shortened).collect();
        let source = RemoteError::chain(causes).map(Into::into);
        Self { class: self.class, index: self.index, text: shortened(self.text.clone()), source }
    }

    fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut cause: Option<&(dyn std::error::Error + 'static)> = match &self.source {
            Some(source) => Some(&**source),
            None => None,
        };
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        causes
    }

    /// As it travels between processes.
    pub(crate) fn encode(&self) -> Value {
        let class = Class::ALL.iter().position(|class| *class == self.class).unwrap_or(0);
        let index = self.index.map_or(Value::None, |index| Value::Int((index as u64).cast_signed()));
        let causes = self.causes().into_iter().map(Value::Text).collect();
        Value::Tuple(vec![
            Value::Int(class as i64),
            index,
            Value::Text(self.text.clone()),
            Value::List(causes),
        ])
    }

    /// Reads what another process has told.
    pub(crate) fn decode(value: Value) -> Result<Self, EngineError> {
        let unknown = || EngineError::Layout("a failure is described in an unknown way");
        let Value::Tuple(parts) = value else { return Err(unknown()) };
        let Ok([Value::Int(class), index, Value::Text(text), Value::List(causes)]) =
            <[Value; 4]>::try_from(parts)
        else {
            return Err(unknown());
        };
        let class =
            usize::try_from(class).ok().and_then(|class| Class::ALL.get(class)).ok_or_else(unknown)?;
        let index = match index {
            Value::Int(index) => Some(usize::try_from(index.cast_unsigned()).map_err(|_| unknown())?),
            _ => None,
        };
        let text_of = |value| if let Value::Text(text) = value { Some(text) } else { None };
        let causes: Vec<String> =
            causes.into_iter().map(text_of).collect::<Option<_>>().ok_or_else(unknown)?;
        let source = RemoteError::chain(causes).map(Into::into);
        Ok(Self { class: *class, index, text, source })
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > SHORT_BYTES {
        let end = (0..=SHORT_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

/// An error of another process: its text, and those of its causes.
///
/// It is the [`source`](std::error::Error::source) of an [`Error`] where the workers are processes; where they are threads,
/// the source is the original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteError {
    text: String,
    source: Option<Box<RemoteError>>,
}

impl RemoteError {
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        Self { text: error.to_string(), source: error.source().map(|source| Box::new(Self::of(source))) }
    }

    fn chain(causes: Vec<String>) -> Option<Self> {
        let link = |source: Option<Self>, text| Some(Self { text, source: source.map(Box::new) });
        causes.into_iter().rev().fold(None, link)
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for RemoteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn failures() -> impl Strategy<Value = Failure> {
        let causes = prop::collection::vec(any::<String>(), 0..4);
        (prop::sample::select(&Class::ALL[..]), prop::option::of(0..usize::MAX / 2), any::<String>(), causes)
            .prop_map(|(class, index, text, causes)| {
                let source = RemoteError::chain(causes).map(Into::into);
                Failure { class, index, text, source }
            })
    }

    proptest! {
        #[test]
        fn a_failure_is_told_between_processes(failure in failures()) {
            let told = Failure::decode(failure.encode()).unwrap();
            prop_assert_eq!((told.class, told.index, &told.text), (failure.class, failure.index, &failure.text));
            prop_assert_eq!(told.causes(), failure.causes());
        }
    }

    #[test]
    fn every_slot_has_room_for_a_short_failure() {
        let long = || "\u{1F4F7}".repeat(100_000);
        let source = RemoteError::chain(vec![long(); 30]).unwrap();
        let failure = Failure::new(Class::Dataset, long()).because(source).short();
        let mut bytes = Vec::new();
        forebay_engine::layout::encode(&failure.encode(), &mut bytes);
        assert!((bytes.len() as u64) < forebay_shm::MIN_SLOT_BYTES, "{} bytes", bytes.len());
    }

    #[test]
    fn what_makes_no_sense_is_no_failure() {
        let parts =
            |class, index| vec![Value::Int(class), index, Value::Text("no".into()), Value::List(Vec::new())];
        for parts in [Vec::new(), parts(99, Value::None), parts(-1, Value::None)] {
            assert!(Failure::decode(Value::Tuple(parts)).is_err());
        }
    }
}
