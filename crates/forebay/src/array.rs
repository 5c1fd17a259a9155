//! Typed elements, and arrays of them.

use std::fmt;
use std::sync::Arc;

use forebay_engine::layout;

use crate::Error;
use crate::error::Kind;

/// The type of an array's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// `bool`
    Bool,
    /// `u8`
    U8,
    /// `u16`
    U16,
    /// `u32`
    U32,
    /// `u64`
    U64,
    /// `i8`
    I8,
    /// `i16`
    I16,
    /// `i32`
    I32,
    /// `i64`
    I64,
    /// `f32`
    F32,
    /// `f64`
    F64,
}

impl DType {
    const ALL: [Self; 11] = [
        Self::Bool,
        Self::U8,
        Self::U16,
        Self::U32,
        Self::U64,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::F32,
        Self::F64,
    ];

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        usize::from(self.on_the_journey().bits) / 8
    }

    /// As the engine numbers it.
    pub(crate) fn on_the_journey(self) -> layout::DType {
        let (code, bits) = match self {
            Self::Bool => return layout::DType::BOOL,
            Self::I8 => (0, 8),
            Self::I16 => (0, 16),
            Self::I32 => (0, 32),
            Self::I64 => (0, 64),
            Self::U8 => (1, 8),
            Self::U16 => (1, 16),
            Self::U32 => (1, 32),
            Self::U64 => (1, 64),
            Self::F32 => (2, 32),
            Self::F64 => (2, 64),
        };
        layout::DType { code, bits }
    }

    pub(crate) fn from_the_journey(dtype: layout::DType) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.on_the_journey() == dtype)
    }
}

impl fmt::Display for DType {
    /// As Rust writes the type: `f32`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&format!("{self:?}").to_lowercase())
    }
}

/// Numbers and truth values that an array can be made of: `bool`, `u8` to `u64`, `i8` to `i64`, `f32`, `f64`.
///
/// It cannot be implemented elsewhere.
pub trait Element: sealed::Element {}

pub(crate) mod sealed {
    use bytemuck::{CheckedBitPattern, NoUninit};

    use super::DType;

    pub trait Element: NoUninit + CheckedBitPattern + Send + Sync {
        const DTYPE: DType;

        /// The elements that `bytes` are; `None` when they are none.
        fn view(bytes: &[u8]) -> Option<&[Self]>;

        /// As [`view`](Self::view), to be changed.
        fn view_mut(bytes: &mut [u8]) -> Option<&mut [Self]>;
    }

    macro_rules! numbers {
        ($($element:ident: $dtype:ident),*) => {$(
            impl super::Element for $element {}

            impl Element for $element {
                const DTYPE: DType = DType::$dtype;

                fn view(bytes: &[u8]) -> Option<&[Self]> {
                    bytemuck::try_cast_slice(bytes).ok()
                }

                fn view_mut(bytes: &mut [u8]) -> Option<&mut [Self]> {
                    bytemuck::try_cast_slice_mut(bytes).ok()
                }
            }
        )*};
    }

    numbers!(u8: U8, u16: U16, u32: U32, u64: U64, i8: I8, i16: I16, i32: I32, i64: I64, f32: F32, f64: F64);

    impl super::Element for bool {}

    impl Element for bool {
        const DTYPE: DType = DType::Bool;

        fn view(bytes: &[u8]) -> Option<&[Self]> {
            bytemuck::checked::try_cast_slice(bytes).ok()
        }

        fn view_mut(bytes: &mut [u8]) -> Option<&mut [Self]> {
            bytemuck::checked::try_cast_slice_mut(bytes).ok()
        }
    }
}

/// An array of one sample: a shape and its elements, the last dimension first. Cheap to clone.
///
/// ```
/// # use forebay::{Array, DType, Error};
/// let image = Array::from_vec([2, 2, 3], vec![0u8; 12])?;
/// assert_eq!((image.dtype(), image.shape()), (DType::U8, &[2, 2, 3][..]));
/// let tokens = Array::from(vec![5u32, 7, 1]);
/// assert_eq!(tokens.shape(), [3]);
/// let label = Array::from(4i64);
/// assert_eq!(label.shape(), []);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Array {
    dtype: DType,
    shape: Vec<usize>,
    elements: Elements,
}

#[derive(Clone)]
enum Elements {
    /// A scalar, in its first bytes.
    One([u8; 8]),
    Many(Arc<dyn AsBytes>),
}

trait AsBytes: Send + Sync {
    fn as_bytes(&self) -> &[u8];
}

impl<E: Element> AsBytes for Vec<E> {
    fn as_bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }
}

impl Array {
    /// The array of `shape` with these elements. They are not copied.
    ///
    /// # Errors
    /// When there are more or fewer elements than the shape has.
    pub fn from_vec<E: Element>(shape: impl Into<Vec<usize>>, elements: Vec<E>) -> Result<Self, Error> {
        let shape = shape.into();
        let count = shape.iter().try_fold(1usize, |product, count| product.checked_mul(*count));
        if count != Some(elements.len()) {
            return Err(Kind::Shape { shape, given: elements.len() }.into());
        }
        Ok(Self { dtype: E::DTYPE, shape, elements: Elements::Many(Arc::new(elements)) })
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// How many elements in each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.elements {
            Elements::One(bytes) => &bytes[..self.dtype.bytes()],
            Elements::Many(elements) => elements.as_bytes(),
        }
    }
}

impl<E: Element> From<E> for Array {
    /// A scalar: an array without dimensions.
    fn from(element: E) -> Self {
        let mut bytes = [0; 8];
        let element = bytemuck::bytes_of(&element);
        bytes[..element.len()].copy_from_slice(element);
        Self { dtype: E::DTYPE, shape: Vec::new(), elements: Elements::One(bytes) }
    }
}

impl<E: Element> From<Vec<E>> for Array {
    /// An array of one dimension.
    fn from(elements: Vec<E>) -> Self {
        let shape = vec![elements.len()];
        Self { dtype: E::DTYPE, shape, elements: Elements::Many(Arc::new(elements)) }
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Array({}{:?})", self.dtype, self.shape)
    }
}
