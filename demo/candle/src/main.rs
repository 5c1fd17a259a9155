//! Trains a small network in candle to tell two spirals apart, on batches that Forebay's worker processes make:
//! `cargo run --release --manifest-path demo/candle/Cargo.toml`
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use candle_core::{D, Device, Result as Candle, Tensor, Var};
use forebay::{Batch, BatchWriter, BoxError, Collate, DataLoader, Dataset, OwnedArray, Samples, WorkerEntry};
use serde::{Deserialize, Serialize};

const EPOCHS: usize = 30;
const HIDDEN: usize = 32;
const RATE: f64 = 0.3;

/// Points on two spirals, one wound into the other.
#[derive(Serialize, Deserialize)]
struct Spirals {
    len: usize,
}

impl Dataset for Spirals {
    type Sample = ([f32; 2], f32);

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, index: usize) -> Result<Self::Sample, BoxError> {
        let (along, arm) = (index as f32 / self.len as f32, (index % 2) as f32);
        let angle = along * 5.0 + arm * std::f32::consts::PI;
        let radius = 0.2 + along;
        Ok(([radius * angle.cos(), radius * angle.sin()], arm))
    }
}

/// Points and the arms they are on, as two arrays.
#[derive(Serialize, Deserialize)]
struct Points;

struct PointBatch {
    points: OwnedArray<f32>,
    arms: OwnedArray<f32>,
}

impl Collate<([f32; 2], f32)> for Points {
    type Batch = PointBatch;

    fn collate(
        &self,
        samples: Samples<'_, ([f32; 2], f32)>,
        page: &mut BatchWriter<'_>,
    ) -> Result<(), BoxError> {
        let points = page.add::<f32>("points", [samples.len(), 2])?;
        let arms = page.add::<f32>("arms", [samples.len(), 1])?;
        for (row, sample) in samples.enumerate() {
            let (point, arm) = sample?;
            page.write(points, row * 2, &point)?;
            page.write(arms, row, &[arm])?;
        }
        Ok(())
    }

    fn open(&self, mut batch: Batch) -> Result<PointBatch, BoxError> {
        Ok(PointBatch { points: batch.take("points")?, arms: batch.take("arms")? })
    }
}

/// A batch's array as a tensor: here, and only here, candle copies it.
fn tensor(array: &OwnedArray<f32>, device: &Device) -> Candle<Tensor> {
    Tensor::from_slice(array, array.shape(), device)
}

/// Three layers.
struct Network {
    layers: Vec<(Var, Var)>,
}

impl Network {
    fn new(device: &Device) -> Candle<Self> {
        let sizes = [2, HIDDEN, HIDDEN, 1];
        let layer = |pair: &[usize]| {
            let spread = (2.0 / pair[0] as f64).sqrt();
            Ok((
                Var::randn(0f32, spread as f32, (pair[0], pair[1]), device)?,
                Var::zeros(pair[1], candle_core::DType::F32, device)?,
            ))
        };
        Ok(Self { layers: sizes.windows(2).map(layer).collect::<Candle<_>>()? })
    }

    fn forward(&self, points: &Tensor) -> Candle<Tensor> {
        let mut values = points.clone();
        for (place, (weights, bias)) in self.layers.iter().enumerate() {
            values = values.matmul(weights)?.broadcast_add(bias)?;
            if place + 1 < self.layers.len() {
                values = values.tanh()?;
            }
        }
        Ok(values)
    }

    /// One step of gradient descent; tells the loss.
    fn step(&self, points: &Tensor, arms: &Tensor) -> Candle<f32> {
        let guess = self.forward(points)?;
        // The logistic loss: log(1 + exp(guess)) - arm * guess.
        let loss = ((guess.exp()? + 1.0)?.log()? - (arms * &guess)?)?.mean_all()?;
        let gradients = loss.backward()?;
        for var in self.layers.iter().flat_map(|(weights, bias)| [weights, bias]) {
            if let Some(gradient) = gradients.get(var) {
                var.set(&(var.as_tensor() - (gradient * RATE)?)?)?;
            }
        }
        loss.to_scalar()
    }

    /// How many points it puts on the right arm.
    fn right(&self, points: &Tensor, arms: &Tensor) -> Candle<f32> {
        let guesses = self.forward(points)?.ge(0f32)?.to_dtype(candle_core::DType::F32)?;
        guesses.eq(arms)?.to_dtype(candle_core::DType::F32)?.sum(D::Minus2)?.sum_all()?.to_scalar()
    }
}

fn main() -> Result<(), BoxError> {
    WorkerEntry::new().dataset_with::<Spirals, Points>().enter();
    let device = Device::Cpu;
    let builder = DataLoader::builder(Spirals { len: 4000 }).collate(Points).batch_size(50).shuffle(true).seed(0);
    let loader = builder.num_workers(2).persistent_workers(true).processes().build()?;
    let network = Network::new(&device)?;
    for epoch in 0..EPOCHS {
        let (mut loss, mut right, mut count) = (0.0, 0.0, 0);
        for batch in &loader {
            let batch = batch?;
            let (points, arms) = (tensor(&batch.points, &device)?, tensor(&batch.arms, &device)?);
            right += network.right(&points, &arms)?;
            loss += network.step(&points, &arms)? * batch.arms.len() as f32;
            count += batch.arms.len();
        }
        if epoch % 5 == 4 {
            println!(
                "epoch {:2}: loss {:.4}, {:.1} % right",
                epoch + 1,
                loss / count as f32,
                100.0 * right / count as f32
            );
        }
    }
    Ok(())
}
