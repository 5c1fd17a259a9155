//! Station 3, the making: samples into the rows of a batch, each copied once and dropped at once.

use std::fmt::{self, Write};
use std::marker::PhantomData;

use forebay_engine::layout::{self, Value};
use forebay_shm::{Region, ShmError, SlotWriter, Span};

use crate::error::Kind;
use crate::failure::{Class, Failure};
use crate::{Array, Batch, BoxError, DType, Element, Error, Sample};

/// Makes batches of samples: the samples' arrays into the batch's memory, and that memory into a type of the user's.
///
/// The two halves may run in two processes: [`collate`](Self::collate) in a worker, [`open`](Self::open) in the program
/// that asked for the batch.
///
/// ```
/// use forebay::{
///     Batch, BatchWriter, BoxError, Collate, DataLoader, Dataset, Error, OwnedArray, Samples,
/// };
///
/// /// Sentences as tokens, of any length.
/// struct Sentences;
///
/// impl Dataset for Sentences {
///     type Sample = Vec<u32>;
///
///     fn len(&self) -> usize {
///         4
///     }
///
///     fn get(&self, index: usize) -> Result<Vec<u32>, BoxError> {
///         Ok(vec![7; index + 1])
///     }
/// }
///
/// /// Sentences filled up with zeros to one length.
/// struct Padded {
///     tokens: OwnedArray<u32>,
///     lengths: OwnedArray<u32>,
/// }
///
/// struct Pad {
///     length: usize,
/// }
///
/// impl Collate<Vec<u32>> for Pad {
///     type Batch = Padded;
///
///     fn collate(&self, samples: Samples<'_, Vec<u32>>, page: &mut BatchWriter<'_>) -> Result<(), BoxError> {
///         let tokens = page.add::<u32>("tokens", [samples.len(), self.length])?;
///         let lengths = page.add::<u32>("lengths", [samples.len()])?;
///         for (row, sample) in samples.enumerate() {
///             let mut sample = sample?;
///             page.write(lengths, row, &[sample.len() as u32])?;
///             sample.resize(self.length, 0);
///             page.write(tokens, row * self.length, &sample)?;
///         }
///         Ok(())
///     }
///
///     fn open(&self, mut batch: Batch) -> Result<Padded, BoxError> {
///         Ok(Padded { tokens: batch.take("tokens")?, lengths: batch.take("lengths")? })
///     }
/// }
///
/// let builder = DataLoader::builder(Sentences).collate(Pad { length: 3 });
/// for batch in &builder.batch_size(2).num_workers(1).build()? {
///     let batch: Padded = batch?;
///     assert_eq!(batch.tokens.shape(), [2, 3]);
///     // A slice that the batch lends: the compiler sees to it that the batch is there as long.
///     let last: &[u32] = &batch.tokens[3..];
///     assert_eq!(last[0], 7);
///     assert!(batch.lengths[0] < batch.lengths[1]);
/// }
/// # Ok::<(), Error>(())
/// ```
pub trait Collate<S>: Send + Sync {
    /// What the loader gives for each batch.
    type Batch;

    /// Writes the samples into the memory of a batch. Called by a worker, once for each batch.
    ///
    /// # Errors
    /// Whatever went wrong. An error that [`Samples`] or [`BatchWriter`] gave is to be passed on as it is (`?`): it knows
    /// the sample's index.
    fn collate(&self, samples: Samples<'_, S>, page: &mut BatchWriter<'_>) -> Result<(), BoxError>;

    /// The batch as the user is to see it: [`Batch::take`] hands its arrays out without a copy. Called where the batch is
    /// asked for.
    ///
    /// # Errors
    /// Whatever went wrong.
    fn open(&self, batch: Batch) -> Result<Self::Batch, BoxError>;
}

/// The samples of one batch, each made when it is asked for: drop it before the next, and no two are in memory at once.
/// Only those of a stream are all there before the first, because nobody knows sooner how many there are.
pub struct Samples<'a, S> {
    indices: Option<&'a [usize]>,
    left: usize,
    next: &'a mut dyn FnMut() -> Option<Result<S, Error>>,
}

impl<'a, S> Samples<'a, S> {
    /// `len` samples that `next` makes; `indices` when they have any.
    pub(crate) fn new(
        len: usize,
        indices: Option<&'a [usize]>,
        next: &'a mut dyn FnMut() -> Option<Result<S, Error>>,
    ) -> Self {
        Self { indices, left: len, next }
    }

    /// The indices of all samples of the batch; `None` where they come from a stream.
    pub fn indices(&self) -> Option<&'a [usize]> {
        self.indices
    }
}

impl<S> Iterator for Samples<'_, S> {
    type Item = Result<S, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let sample = (self.next)();
        self.left = if sample.is_some() { self.left.saturating_sub(1) } else { 0 };
        sample
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<S> ExactSizeIterator for Samples<'_, S> {}

impl<S> fmt::Debug for Samples<'_, S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = formatter.debug_struct("Samples");
        text.field("indices", &self.indices).field("left", &self.left).finish_non_exhaustive()
    }
}

/// Where the arrays of one batch are written.
pub(crate) trait Room {
    /// Sets room for `len` bytes aside: the next array's.
    fn add(&mut self, len: u64) -> Result<(), ShmError>;

    /// Writes bytes of an array, from `offset` in it.
    fn write(&mut self, array: usize, offset: usize, bytes: &[u8]) -> Result<(), ShmError>;

    /// The bytes of an array, whatever is there.
    fn bytes_mut(&mut self, array: usize) -> Result<&mut [u8], ShmError>;

    /// Where the bytes of an array will be found.
    fn span(&self, array: usize) -> Span;
}

/// A worker's slot.
pub(crate) struct Slot<'a> {
    writer: &'a mut SlotWriter,
    spans: Vec<Span>,
}

impl<'a> Slot<'a> {
    pub(crate) fn new(writer: &'a mut SlotWriter) -> Self {
        Self { writer, spans: Vec::new() }
    }
}

impl Room for Slot<'_> {
    fn add(&mut self, len: u64) -> Result<(), ShmError> {
        let offset = self.writer.allocate(len)?;
        self.spans.push(Span { offset, len });
        Ok(())
    }

    fn write(&mut self, array: usize, offset: usize, bytes: &[u8]) -> Result<(), ShmError> {
        self.writer.write(self.spans[array].offset + offset as u64, bytes)
    }

    fn bytes_mut(&mut self, array: usize) -> Result<&mut [u8], ShmError> {
        let Span { offset, len } = self.spans[array];
        self.writer.bytes_mut(offset, len)
    }

    fn span(&self, array: usize) -> Span {
        self.spans[array]
    }
}

/// The heap, where there are no workers.
impl Room for Vec<Region> {
    fn add(&mut self, len: u64) -> Result<(), ShmError> {
        self.push(Region::on_heap(len as usize)?);
        Ok(())
    }

    fn write(&mut self, array: usize, offset: usize, bytes: &[u8]) -> Result<(), ShmError> {
        self[array].bytes_mut()[offset..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn bytes_mut(&mut self, array: usize) -> Result<&mut [u8], ShmError> {
        Ok(self[array].bytes_mut())
    }

    fn span(&self, array: usize) -> Span {
        Span { offset: 0, len: self[array].len() as u64 }
    }
}

/// The memory of the batch that is being made. What is written here is what the trainer reads: nothing is copied later.
pub struct BatchWriter<'a> {
    len: usize,
    room: &'a mut dyn Room,
    arrays: Vec<Field>,
}

/// An array of the batch that a [`BatchWriter`] writes.
#[derive(Debug)]
pub struct ArrayId<E> {
    place: usize,
    elements: PhantomData<E>,
}

impl<E> Clone for ArrayId<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for ArrayId<E> {}

#[derive(Debug)]
struct Field {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    bytes: usize,
}

impl<'a> BatchWriter<'a> {
    /// For a batch of `len` samples.
    pub(crate) fn new(len: usize, room: &'a mut dyn Room) -> Self {
        Self { len, room, arrays: Vec::new() }
    }

    /// Sets an array aside. Its elements are whatever was there before, until they are written.
    ///
    /// # Errors
    /// When there is no memory for it, with numbers; when the batch has an array of this name already.
    pub fn add<E: Element>(
        &mut self,
        name: impl Into<String>,
        shape: impl Into<Vec<usize>>,
    ) -> Result<ArrayId<E>, Error> {
        let place = self.add_any(name.into(), E::DTYPE, shape.into())?;
        Ok(ArrayId { place, elements: PhantomData })
    }

    fn add_any(&mut self, name: String, dtype: DType, shape: Vec<usize>) -> Result<usize, Error> {
        if self.arrays.iter().any(|array| array.name == name) {
            let what = format!("the batch has an array {name:?} already: give each array a name of its own");
            return Err(Kind::Writing { what }.into());
        }
        let bytes = shape.iter().try_fold(dtype.bytes(), |bytes, count| bytes.checked_mul(*count));
        let bytes = bytes.filter(|bytes| isize::try_from(*bytes).is_ok()).ok_or_else(|| Kind::Writing {
            what: format!("an array {name:?} of shape {shape:?} is larger than any memory"),
        })?;
        self.room.add(bytes as u64).map_err(no_memory)?;
        self.arrays.push(Field { name, dtype, shape, bytes });
        Ok(self.arrays.len() - 1)
    }

    /// Writes `elements` from element number `start` of the array on.
    ///
    /// # Errors
    /// When the array has no such elements; when there is no memory.
    pub fn write<E: Element>(
        &mut self,
        array: ArrayId<E>,
        start: usize,
        elements: &[E],
    ) -> Result<(), Error> {
        let bytes: &[u8] = bytemuck::cast_slice(elements);
        let field = self.field(array)?;
        let offset = start.checked_mul(size_of::<E>());
        let inside =
            offset.filter(|offset| offset.checked_add(bytes.len()).is_some_and(|end| end <= field.bytes));
        let outside = || Kind::Writing {
            what: format!(
                "{} elements from number {start} on are not in array {:?} of shape {:?}",
                elements.len(),
                field.name,
                field.shape
            ),
        };
        let offset = inside.ok_or_else(outside)?;
        self.room.write(array.place, offset, bytes).map_err(no_memory)
    }

    /// All elements of the array, to be written in place: whatever was there before, until they are.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn slice_mut<E: Element>(&mut self, array: ArrayId<E>) -> Result<&mut [E], Error> {
        let field = self.field(array)?;
        let error = Kind::NoElements { name: field.name.clone(), dtype: field.dtype };
        let bytes = self.room.bytes_mut(array.place).map_err(no_memory)?;
        if E::view(bytes).is_none() {
            // Of all types, only truth values cannot be any bytes.
            bytes.fill(0);
        }
        E::view_mut(bytes).ok_or_else(|| error.into())
    }

    /// The array, when it is one of this batch's.
    fn field<E: Element>(&self, array: ArrayId<E>) -> Result<&Field, Error> {
        let field = self.arrays.get(array.place).filter(|field| field.dtype == E::DTYPE);
        let what =
            || Kind::Writing { what: String::from("an array of another batch cannot be written here") };
        field.ok_or_else(|| what().into())
    }

    /// What the trainer is told of the batch.
    pub(crate) fn describe(self) -> Value {
        let room = self.room;
        let array = |(place, field): (usize, Field)| {
            let shape = field.shape.iter().map(|count| *count as u64).collect();
            let (dtype, span) = (field.dtype.on_the_journey(), room.span(place));
            let array = layout::Array { flavour: 0, dtype, shape, strides: None, span };
            (Value::Text(field.name), Value::Array(array))
        };
        let arrays = self.arrays.into_iter().enumerate().map(array).collect();
        Value::Tuple(vec![Value::Int(self.len as i64), Value::Map(arrays)])
    }
}

impl fmt::Debug for BatchWriter<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BatchWriter").field("arrays", &self.arrays).finish_non_exhaustive()
    }
}

fn no_memory(source: ShmError) -> Error {
    Failure::new(Class::Memory, "there is no memory for a batch").because(source).into()
}

/// Stacks the arrays of [`Sample`]s: array by array, the first dimension becomes the sample. What a loader does unless it
/// is given another [`Collate`].
#[derive(Debug, Clone, Copy, Default, serde::Serialize, serde::Deserialize)]
pub struct Stack;

impl Collate<Sample> for Stack {
    type Batch = Batch;

    fn collate(&self, samples: Samples<'_, Sample>, page: &mut BatchWriter<'_>) -> Result<(), BoxError> {
        let (count, indices) = (samples.len(), samples.indices());
        for (row, sample) in samples.enumerate() {
            let sample = sample?;
            if row == 0 {
                for (name, array) in sample.arrays() {
                    let shape = [count].iter().chain(array.shape()).copied().collect();
                    page.add_any(name.to_string(), array.dtype(), shape)?;
                }
            }
            if !stack(&sample, row, page)? {
                return Err(mismatch(&sample, row, indices, page).into());
            }
        }
        Ok(())
    }

    fn open(&self, batch: Batch) -> Result<Batch, BoxError> {
        Ok(batch)
    }
}

/// Writes a sample into its row; tells whether it is like the first one.
fn stack(sample: &Sample, row: usize, page: &mut BatchWriter<'_>) -> Result<bool, Error> {
    if sample.arrays().len() != page.arrays.len() {
        return Ok(false);
    }
    for (place, field) in page.arrays.iter().enumerate() {
        let Some(array) = like(field, place, sample) else { return Ok(false) };
        let bytes = array.bytes();
        page.room.write(place, row * bytes.len(), bytes).map_err(no_memory)?;
    }
    Ok(true)
}

/// The array of a sample that belongs into `field`, most often at the same place.
fn like<'a>(field: &Field, place: usize, sample: &'a Sample) -> Option<&'a Array> {
    let array = match sample.arrays().get(place) {
        Some((name, array)) if *name == field.name => array,
        _ => sample.array(&field.name)?,
    };
    (array.dtype() == field.dtype && array.shape() == &field.shape[1..]).then_some(array)
}

fn mismatch(sample: &Sample, row: usize, indices: Option<&[usize]>, page: &BatchWriter<'_>) -> Error {
    let first = page.arrays.iter().map(|field| (field.name.as_str(), field.dtype, &field.shape[1..]));
    let other = sample.arrays().iter().map(|(name, array)| (name.as_ref(), array.dtype(), array.shape()));
    let at = |row: usize| match indices {
        Some(indices) => format!("index {}", indices[row]),
        None => format!("place {row} of the batch"),
    };
    let text = format!(
        "the samples of one batch must have the same arrays, but the one at {} has {} and the one at {} has {}; make \
         them alike in the dataset, use batch_size(1), or give the loader a collate",
        at(0),
        listed(first),
        at(row),
        listed(other)
    );
    Failure::new(Class::Mismatch, text).at(indices.map(|indices| indices[row])).into()
}

fn listed<'a>(arrays: impl Iterator<Item = (&'a str, DType, &'a [usize])>) -> String {
    let mut text = String::new();
    for (name, dtype, shape) in arrays {
        let comma = if text.is_empty() { "" } else { ", " };
        // A string takes everything.
        let _ = write!(text, "{comma}{name}: {dtype}{shape:?}");
    }
    if text.is_empty() { "no arrays".into() } else { text }
}
