//! Image data sets, splits and augmentation for dpq
