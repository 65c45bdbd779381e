//! The words of an enum, as its `Deserialize` tells them to whoever reads it: a new variant is among them at once.

use serde::{
    Deserialize, Deserializer, de,
    de::{Visitor, value::Error},
    forward_to_deserialize_any,
};

/// The serialized names of all variants.
pub(crate) fn of<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut words: &[&str] = &[];
    // It fails, once it has told them.
    drop(T::deserialize(Listener(&mut words)));
    assert!(!words.is_empty(), "no enum of words");
    words
}

struct Listener<'w>(&'w mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Listener<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(de::Error::custom("nothing to read"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = variants;
        Err(de::Error::custom("nothing to read"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
