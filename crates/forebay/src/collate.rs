//! Station 3, the making: samples into the rows of a batch, each copied once and dropped at once.

use std::fmt::Write;

use forebay_engine::layout::{self, Value};
use forebay_shm::{Region, ShmError, SlotWriter, Span};

use crate::error::{Kind, Place};
use crate::{Array, DType, Error, Sample};

/// Where the arrays of one batch are written.
pub(crate) trait Room {
    /// Sets room for `len` bytes aside: the next array's.
    fn add(&mut self, len: u64) -> Result<(), ShmError>;

    /// Writes bytes of an array, from `offset` in it.
    fn write(&mut self, array: usize, offset: usize, bytes: &[u8]) -> Result<(), ShmError>;

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

    fn span(&self, array: usize) -> Span {
        self.spans[array]
    }
}

/// The heap, where there are no workers.
impl Room for Vec<Region> {
    fn add(&mut self, len: u64) -> Result<(), ShmError> {
        self.push(Region::on_heap(len as usize));
        Ok(())
    }

    fn write(&mut self, array: usize, offset: usize, bytes: &[u8]) -> Result<(), ShmError> {
        self[array].bytes_mut()[offset..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn span(&self, array: usize) -> Span {
        Span { offset: 0, len: self[array].len() as u64 }
    }
}

/// What the samples of one batch have in common: it is taken from the first.
struct Layout {
    index: usize,
    arrays: Vec<Field>,
}

struct Field {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    row_bytes: usize,
}

impl Layout {
    fn of(index: usize, sample: &Sample) -> Self {
        let field = |(name, array): &(_, Array)| Field {
            name: String::from(name as &std::borrow::Cow<'static, str> as &str),
            dtype: array.dtype(),
            shape: array.shape().to_vec(),
            row_bytes: array.bytes().len(),
        };
        Self { index, arrays: sample.arrays().iter().map(field).collect() }
    }

    /// The arrays of another sample in this order; `None` when they are not alike.
    fn order<'a>(&self, sample: &'a Sample) -> Option<Vec<&'a Array>> {
        if sample.arrays().len() != self.arrays.len() {
            return None;
        }
        let alike =
            |field: &Field, array: &Array| array.dtype() == field.dtype && array.shape() == field.shape;
        let find = |field: &Field| sample.array(&field.name).filter(|array| alike(field, array));
        self.arrays.iter().map(find).collect()
    }

    /// What the trainer is told of a batch of `count` samples in `room`.
    fn describe(&self, count: usize, room: &impl Room) -> Value {
        let array = |(place, field): (usize, &Field)| {
            let shape = [count].iter().chain(&field.shape).map(|count| *count as u64).collect();
            let (dtype, span) = (field.dtype.on_the_journey(), room.span(place));
            let array = layout::Array { flavour: 0, dtype, shape, strides: None, span };
            (Value::Text(field.name.clone()), Value::Array(array))
        };
        Value::Map(self.arrays.iter().enumerate().map(array).collect())
    }
}

/// Makes the batch of these indices in `room`; tells its description.
///
/// # Errors
/// Of the dataset, as `get` reports them; when samples are not alike; when there is no memory.
pub(crate) fn collate(
    indices: &[usize],
    place: Place,
    room: &mut impl Room,
    get: impl Fn(usize) -> Result<Sample, Error>,
) -> Result<Value, Error> {
    let mut layout: Option<Layout> = None;
    for (row, index) in indices.iter().copied().enumerate() {
        let sample = get(index)?;
        let layout = match &mut layout {
            Some(layout) => layout,
            None => layout.insert(reserve(Layout::of(index, &sample), indices.len(), place, room)?),
        };
        let arrays = layout.order(&sample).ok_or_else(|| mismatch(layout, index, &sample, place))?;
        for (number, array) in arrays.into_iter().enumerate() {
            let bytes = array.bytes();
            room.write(number, row * bytes.len(), bytes).map_err(|source| Kind::Memory { place, source })?;
        }
    }
    Ok(layout.map_or(Value::Map(Vec::new()), |layout| layout.describe(indices.len(), room)))
}

fn reserve(layout: Layout, count: usize, place: Place, room: &mut impl Room) -> Result<Layout, Error> {
    for field in &layout.arrays {
        let len = (field.row_bytes as u64).saturating_mul(count as u64);
        room.add(len).map_err(|source| Kind::Memory { place, source })?;
    }
    Ok(layout)
}

fn mismatch(layout: &Layout, index: usize, sample: &Sample, place: Place) -> Error {
    let first = layout.arrays.iter().map(|field| (field.name.as_str(), field.dtype, field.shape.as_slice()));
    let other = sample.arrays().iter().map(|(name, array)| (name.as_ref(), array.dtype(), array.shape()));
    Kind::Mismatch { first_index: layout.index, first: listed(first), index, other: listed(other), place }
        .into()
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
