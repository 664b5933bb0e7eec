//! DER (ITU-T X.690), as much of it as a certificate needs: elements with a tag of one byte and a definite
//! length in its shortest form. Pure; never recurses, never copies what it reads.

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;

/// An element: `parts`, one after the other, under `tag`.
pub(super) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut der = vec![tag];
    match u8::try_from(length) {
        Ok(short @ 0..=0x7f) => der.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let significant = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(0)..];
            // At most the eight bytes of a `usize`.
            der.push(0x80 | significant.len() as u8);
            der.extend_from_slice(significant);
        }
    }
    parts.iter().for_each(|part| der.extend_from_slice(part));
    der
}

/// What has not been read yet of some elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The content of the next element, if it has this tag.
    pub(super) fn next(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next_whole(tag).map(|(_, content)| content)
    }

    /// The next element, if it has this tag: with its header, and its content alone.
    pub(super) fn next_whole(&mut self, tag: u8) -> Option<(&'a [u8], &'a [u8])> {
        let [first, length, ..] = *self.0 else { return None };
        let header = match length {
            0..=0x7f => 2,
            // One to four bytes of length; 0x80 would be an indefinite length.
            0x81..=0x84 => 2 + usize::from(length & 0x7f),
            _ => return None,
        };
        let content = match header {
            2 => usize::from(length),
            _ => {
                let bytes = self.0.get(2..header)?;
                let value = bytes.iter().fold(0_usize, |value, byte| value << 8 | usize::from(*byte));
                if bytes.first() == Some(&0) || value < 0x80 {
                    return None;
                }
                value
            }
        };
        let whole = self.0.get(..header.checked_add(content)?)?;
        if first != tag {
            return None;
        }
        self.0 = &self.0[whole.len()..];
        Some((whole, &whole[header..]))
    }

    /// The content of the next element, if it has this tag and nothing follows it.
    pub(super) fn only(mut self, tag: u8) -> Option<&'a [u8]> {
        self.next(tag).filter(|_| self.0.is_empty())
    }

    /// The bytes of a BIT STRING that is the next element and has no unused bits.
    pub(super) fn next_bits(&mut self) -> Option<&'a [u8]> {
        self.next(BIT_STRING)?.strip_prefix(&[0])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_come_in_their_shortest_form_and_in_no_other() {
        for (length, header) in [
            (0_usize, vec![4, 0]),
            (127, vec![4, 127]),
            (128, vec![4, 0x81, 128]),
            (255, vec![4, 0x81, 255]),
            (256, vec![4, 0x82, 1, 0]),
            (65536, vec![4, 0x83, 1, 0, 0]),
        ] {
            let content = vec![7; length];
            let der = element(OCTET_STRING, &[&content]);
            assert_eq!(der[..header.len()], header);
            assert_eq!(Reader(&der).only(OCTET_STRING), Some(&content[..]));
            assert_eq!(Reader(&der).only(SEQUENCE), None);
            assert_eq!(Reader(&der[..der.len() - 1]).only(OCTET_STRING), None);
        }
        for bad in [
            &[][..],
            &[4],
            &[4, 0x80, 0, 0],
            &[4, 0x81, 5, 1, 2, 3, 4, 5],
            &[4, 0x82, 0, 1, 9],
            &[4, 0x85, 0, 0, 0, 0, 1, 9],
            &[4, 0x84, 255, 255, 255, 255],
            &[4, 1, 9, 9],
        ] {
            assert_eq!(Reader(bad).only(OCTET_STRING), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn an_element_is_read_as_it_was_written(
            tag in 1_u8..31,
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..4),
            after in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let mut der = element(tag, &slices);
            let length = der.len();
            der.extend(&after);
            let mut reader = Reader(&der);
            let (whole, content) = reader.next_whole(tag).unwrap();
            prop_assert_eq!(whole, &der[..length]);
            prop_assert_eq!(content, &parts.concat()[..]);
            prop_assert_eq!(reader.0, &after[..]);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader(&bytes);
            while let Some(tag) = reader.0.first().copied() {
                let left = reader.0.len();
                if reader.next(tag).is_none() {
                    break;
                }
                prop_assert!(reader.0.len() < left);
            }
        }
    }
}
