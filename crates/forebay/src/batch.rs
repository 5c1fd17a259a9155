//! Station 5: a batch as typed slices of the memory it came in.

use forebay_engine::layout::Value;
use forebay_engine::{self as engine, EngineError};
use forebay_shm::Region;

use crate::error::Kind;
use crate::{DType, Element, Error};

/// The samples of one step, array by array. It keeps its memory until it is dropped.
///
/// ```
/// # use forebay::{BoxError, DataLoader, Dataset, Error, Sample};
/// # struct Numbers;
/// # impl Dataset for Numbers {
/// #     fn len(&self) -> usize { 4 }
/// #     fn get(&self, index: usize) -> Result<Sample, BoxError> {
/// #         Ok(Sample::new().with("number", index as f32))
/// #     }
/// # }
/// let loader = DataLoader::builder(Numbers).batch_size(4).build()?;
/// for batch in &loader {
///     let mut batch = batch?;
///     let numbers = batch.array::<f32>("number")?;
///     assert_eq!((numbers.shape(), numbers.as_slice()), (&[4][..], &[0.0, 1.0, 2.0, 3.0][..]));
///     // It is yours: nobody else sees a change.
///     batch.array_mut::<f32>("number")?.as_mut_slice()[0] = 9.0;
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
pub struct Batch {
    len: usize,
    arrays: Vec<BatchArray>,
    copied: bool,
}

#[derive(Debug)]
struct BatchArray {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    region: Region,
}

impl Batch {
    /// How many samples.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no samples. No loader makes such a batch.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The names of the arrays, in the order of the batch's first sample.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.arrays.iter().map(|array| array.name.as_str())
    }

    /// The element type of the array `name`.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.arrays.iter().find(|array| array.name == name).map(|array| array.dtype)
    }

    /// The array `name`, without a copy. Its first dimension is the sample.
    ///
    /// # Errors
    /// When there is no such array, or its elements are of another type.
    pub fn array<E: Element>(&self, name: &str) -> Result<ArrayView<'_, E>, Error> {
        let array = &self.arrays[self.place::<E>(name)?];
        let elements = E::view(array.region.bytes()).ok_or_else(|| array.has_no_elements())?;
        Ok(ArrayView { shape: &array.shape, elements })
    }

    /// The array `name`, to be changed in place.
    ///
    /// # Errors
    /// When there is no such array, or its elements are of another type.
    pub fn array_mut<E: Element>(&mut self, name: &str) -> Result<ArrayViewMut<'_, E>, Error> {
        let place = self.place::<E>(name)?;
        let array = &mut self.arrays[place];
        let error = array.has_no_elements();
        let elements = E::view_mut(array.region.bytes_mut()).ok_or(error)?;
        Ok(ArrayViewMut { shape: &array.shape, elements })
    }

    /// Whether it had to be copied, because the program keeps so many batches that they use the memory budget up.
    pub fn was_copied(&self) -> bool {
        self.copied
    }

    fn place<E: Element>(&self, name: &str) -> Result<usize, Error> {
        let place = self.arrays.iter().position(|array| array.name == name).ok_or_else(|| Kind::NoArray {
            name: name.into(),
            names: self.names().map(String::from).collect(),
        })?;
        let dtype = self.arrays[place].dtype;
        if dtype == E::DTYPE {
            Ok(place)
        } else {
            Err(Kind::OtherType { name: name.into(), dtype, asked: E::DTYPE }.into())
        }
    }

    /// `len` samples, described by `value`, in `regions`.
    pub(crate) fn assemble(
        len: usize,
        value: Value,
        regions: Vec<Region>,
        copied: bool,
    ) -> Result<Self, Error> {
        let Value::Map(pairs) = value else { return Err(unknown()) };
        if pairs.len() != regions.len() {
            return Err(unknown());
        }
        let arrays = pairs.into_iter().zip(regions).map(|(pair, region)| BatchArray::assemble(pair, region));
        Ok(Self { len, arrays: arrays.collect::<Option<_>>().ok_or_else(unknown)?, copied })
    }

    /// A batch that has come from a worker.
    pub(crate) fn from_engine(len: usize, batch: engine::Batch) -> Result<Self, Error> {
        Self::assemble(len, batch.value, batch.regions, batch.copied)
    }
}

/// Our own workers write nothing else, so this is for memory that somebody has overwritten.
fn unknown() -> Error {
    EngineError::Layout("it is not one of this crate's").into()
}

impl BatchArray {
    fn assemble((name, array): (Value, Value), region: Region) -> Option<Self> {
        let (Value::Text(name), Value::Array(array)) = (name, array) else { return None };
        let dtype = DType::from_the_journey(array.dtype)?;
        let shape = array.shape.into_iter().map(|count| count as usize).collect();
        Some(Self { name, dtype, shape, region })
    }

    fn has_no_elements(&self) -> Error {
        Kind::NoElements { name: self.name.clone(), dtype: self.dtype }.into()
    }
}

/// An array of a batch, as it lies in memory.
#[derive(Debug, Clone, Copy)]
pub struct ArrayView<'a, E> {
    shape: &'a [usize],
    elements: &'a [E],
}

impl<'a, E> ArrayView<'a, E> {
    /// How many elements in each dimension; the first is the sample.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// All elements, the last dimension first. They begin on a multiple of 64 bytes.
    pub fn as_slice(&self) -> &'a [E] {
        self.elements
    }
}

/// An array of a batch, to be changed in place.
#[derive(Debug)]
pub struct ArrayViewMut<'a, E> {
    shape: &'a [usize],
    elements: &'a mut [E],
}

impl<E> ArrayViewMut<'_, E> {
    /// How many elements in each dimension; the first is the sample.
    pub fn shape(&self) -> &[usize] {
        self.shape
    }

    /// All elements, the last dimension first.
    pub fn as_mut_slice(&mut self) -> &mut [E] {
        self.elements
    }
}
