//! Devices that run networks.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// A device that runs networks, written `cpu`, or `cuda:N` for the NVIDIA GPU of number N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor, at any number of threads.
    #[default]
    Cpu,
    /// The GPU of this number, counted from 0. Needs the feature `cuda`.
    Cuda(usize),
}

impl Device {
    /// Checks that the device can be used.
    ///
    /// # Errors
    /// [`Error::Device`] if it cannot.
    pub fn check(self) -> Result<(), Error> {
        self.open().map(drop)
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn open(self) -> Result<candle_core::Device, Error> {
        let Self::Cuda(number) = self else { return Ok(candle_core::Device::Cpu) };
        let refused = |reason: String| Error::Device { device: self.to_string(), reason };
        let found = candle_core::cuda_backend::cudarc::driver::CudaContext::device_count()
            .map_err(|error| refused(format!("the CUDA driver finds no GPU ({error})")))?;
        if usize::try_from(found).is_ok_and(|found| number >= found) {
            return Err(refused(format!("found {found} GPUs, numbered from 0")));
        }
        let device = candle_core::Device::new_cuda_with_stream(number)
            .map_err(|error| refused(error.to_string().lines().next().unwrap_or_default().to_owned()))?;
        // SAFETY: all work on the device runs in the one stream made here, so arrays need no events
        // for their order.
        #[expect(unsafe_code, reason = "events cost time")]
        unsafe {
            device.as_cuda_device()?.disable_event_tracking();
        }
        Ok(device)
    }

    #[cfg(not(feature = "cuda"))]
    pub(crate) fn open(self) -> Result<candle_core::Device, Error> {
        match self {
            Self::Cpu => Ok(candle_core::Device::Cpu),
            Self::Cuda(_) => {
                let reason = "this program was built without CUDA, build it with --features cuda".to_owned();
                Err(Error::Device { device: self.to_string(), reason })
            }
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let number = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
        match (text, number) {
            ("cpu", _) => Ok(Self::Cpu),
            (_, Some(number)) => Ok(Self::Cuda(number)),
            _ => Err(Error::unfit("device", format!("found `{text}`"), "cpu or cuda:N, such as cuda:0")),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_they_are_written() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(12)] {
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
        }
        for text in ["", "gpu", "cuda", "cuda:", "cuda:-1", "cuda:0x", "CPU"] {
            let error = text.parse::<Device>().unwrap_err().to_string();
            assert_eq!(error, format!("device: found `{text}`, expected cpu or cuda:N, such as cuda:0"));
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_program_without_cuda_says_so() {
        let error = Device::Cuda(0).open().unwrap_err().to_string();
        assert!(error.contains("cuda:0") && error.contains("built without CUDA"), "{error}");
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn a_gpu_that_is_not_there_is_named() {
        let error = Device::Cuda(4096).open().unwrap_err().to_string();
        assert!(error.starts_with("device: cuda:4096 cannot be used") && !error.contains('\n'), "{error}");
    }
}
