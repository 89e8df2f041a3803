//! The markers of a JPEG file: enough to tell whether it is whole, and to choose a decoder.

/// Facts that the markers of a JPEG file state.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Markers {
    /// True if an end-of-image marker follows the pixels. Bytes after it do not count.
    pub(crate) is_whole: bool,
    is_progressive: bool,
    n_components: u8,
    n_scans: usize,
    has_adobe_segment: bool,
}

impl Markers {
    /// Reads the markers, `None` if the bytes are not those of a JPEG file.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[0xff, 0xd8])?;
        let mut markers = Self::default();
        loop {
            // 0xff 0x00 is a byte of pixels, 0xff 0xff is a fill byte, and restart markers and TEM
            // have no segment.
            let is_marker = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0..=1 | 0xd0..=0xd7 | 0xff);
            let Some(at) = rest.windows(2).position(is_marker) else { return Some(markers) };
            let (marker, segment) = (rest[at + 1], &rest[at + 2..]);
            match (marker, segment) {
                (0xd9, _) => {
                    markers.is_whole = markers.n_scans > 0;
                    return Some(markers);
                }
                // Start of frame, of any process: length, precision, height, width, number of
                // components.
                (0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf, &[_, _, _, _, _, _, _, n, ..]) => {
                    markers.is_progressive = matches!(marker, 0xc2 | 0xc6 | 0xca | 0xce);
                    markers.n_components = n;
                }
                (0xda, _) => markers.n_scans += 1,
                (0xee, [_, _, b'A', b'd', b'o', b'b', b'e', ..]) => markers.has_adobe_segment = true,
                _ => {}
            }
            let &[high, low, ..] = segment else { return Some(markers) };
            let Some(next) = segment.get(usize::from(u16::from_be_bytes([high, low]))..) else {
                return Some(markers);
            };
            rest = next;
        }
    }

    /// Returns true for the files that zune-jpeg 0.5 reads wrong or panics at: progressive gray
    /// images with Adobe's segment, and images that are not progressive but have several scans.
    pub(crate) fn needs_other_decoder(&self) -> bool {
        if self.is_progressive { self.n_components == 1 && self.has_adobe_segment } else { self.n_scans > 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::Markers;

    #[test]
    fn only_the_end_of_the_image_itself_counts() {
        // An application segment that holds a thumbnail with an end of its own, then a scan with a
        // stuffed byte, a restart marker and a fill byte.
        let head =
            [&[0xff, 0xd8, 0xff, 0xe1, 0, 6, 0xff, 0xda, 0xff, 0xd9][..], &[0xff, 0xda, 0, 2]].concat();
        let scan = [1, 0xff, 0, 2, 0xff, 0xd3, 3, 0xff];
        let whole = [&head[..], &scan, &[0xff, 0xd9]].concat();
        let is_whole = |bytes: &[u8]| Markers::read(bytes).unwrap().is_whole;
        assert!(is_whole(&whole) && is_whole(&[&whole[..], b"trailing \xff\xda"].concat()));
        (2..whole.len()).for_each(|end| assert!(!is_whole(&whole[..end]), "cut at {end}"));
        assert!(!is_whole(b"\xff\xd8\xff\xd9"), "no pixels");
        assert_eq!(Markers::read(b"\x89PNG"), None);
    }
}
