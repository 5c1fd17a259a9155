//! What a user gives: samples by index.

use std::borrow::Cow;
use std::sync::Arc;

use crate::Array;

/// Any error of a dataset.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Samples by index, read by several threads at once.
///
/// ```
/// # use forebay::{Array, BoxError, Dataset, Sample};
/// struct Texts(Vec<Vec<u32>>);
///
/// impl Dataset for Texts {
///     fn len(&self) -> usize {
///         self.0.len()
///     }
///
///     fn get(&self, index: usize) -> Result<Sample, BoxError> {
///         // Samples of one batch need one shape.
///         let mut tokens = self.0[index].clone();
///         tokens.resize(16, 0);
///         Ok(Sample::new().with("tokens", tokens).with("length", self.0[index].len() as u32))
///     }
/// }
/// # assert_eq!(Texts(vec![vec![1]]).get(0).unwrap().names().collect::<Vec<_>>(), ["tokens", "length"]);
/// ```
pub trait Dataset: Send + Sync {
    /// How many samples there are. Called once for each epoch, when it begins.
    fn len(&self) -> usize;

    /// The sample at `index`, which is less than [`len`](Self::len).
    ///
    /// Called by a worker, several at once; without workers, by the thread that asks for the batch.
    ///
    /// # Errors
    /// Whatever went wrong: the error comes to the trainer in the place of the batch. A panic does, too, unless the
    /// program is built with `panic = "abort"`.
    fn get(&self, index: usize) -> Result<Sample, BoxError>;

    /// Whether there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<D: Dataset + ?Sized> Dataset for Arc<D> {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn get(&self, index: usize) -> Result<Sample, BoxError> {
        (**self).get(index)
    }
}

/// One record of a dataset: named arrays.
///
/// All samples of a batch need the same names, element types and shapes.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    arrays: Vec<(Cow<'static, str>, Array)>,
}

impl Sample {
    /// No arrays yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an array, a vector or a scalar; replaces the one that has this name already.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, array: impl Into<Array>) -> Self {
        let (name, array) = (name.into(), array.into());
        match self.arrays.iter_mut().find(|(known, _)| *known == name) {
            Some((_, place)) => *place = array,
            None => self.arrays.push((name, array)),
        }
        self
    }

    /// The names, in the order in which they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.arrays.iter().map(|(name, _)| name.as_ref())
    }

    /// The array of this name.
    pub fn array(&self, name: &str) -> Option<&Array> {
        self.arrays.iter().find(|(known, _)| known == name).map(|(_, array)| array)
    }

    pub(crate) fn arrays(&self) -> &[(Cow<'static, str>, Array)] {
        &self.arrays
    }
}
