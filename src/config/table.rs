//! The macro behind the table of keys ([`super::schema`]), and what it needs.

use std::ops::{Bound, RangeBounds};

use super::kind::Kind;

/// A key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// Its name, for instance `gossip.heartbeat`.
    pub(crate) name: &'static str,
    /// Whether a change is applied on SIGHUP, without a restart.
    pub(crate) live: bool,
}

/// Walks over all values of a configuration, each with its key's name.
pub(crate) trait Visitor {
    /// Called for each value. `outside` says how it breaks its bounds, if it does. Not generic in it: this is
    /// one function for all keys of a kind, not one for each key.
    fn key<K: Kind>(
        &mut self,
        name: &'static str,
        field: &mut K::Field,
        outside: &dyn Fn(&K::Field) -> Option<String>,
    );
}

/// How `field` breaks the bounds of `range`, if it does: "expected …".
pub(crate) fn outside<K: Kind>(field: &K::Field, range: impl RangeBounds<K::Field>) -> Option<String>
where
    K::Field: PartialOrd,
{
    if range.contains(field) {
        return None;
    }
    let show = |bound| match bound {
        Bound::Included(value) | Bound::Excluded(value) => Some(plain(&K::to_toml(value))),
        Bound::Unbounded => None,
    };
    Some(match (show(range.start_bound()), show(range.end_bound())) {
        (Some(low), Some(high)) => format!("{low} to {high}"),
        (Some(low), None) => format!("{low} or more"),
        (None, Some(high)) => format!("{high} or less"),
        (None, None) => "anything".into(),
    })
}

/// A TOML value without quotes around text.
pub(crate) fn plain(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

macro_rules! kind {
    ($field:ty) => {
        $field
    };
    ($field:ty, $kind:ty) => {
        $kind
    };
}

macro_rules! live {
    (live) => {
        true
    };
    ($($other:tt)*) => {
        false
    };
}

macro_rules! bounds {
    ($kind:ty;) => {
        |_| None
    };
    ($kind:ty; live) => {
        |_| None
    };
    ($kind:ty; $range:expr) => {
        |field| $crate::config::table::outside::<$kind>(field, $range)
    };
}

macro_rules! sections {
    ($role:ident;
    top {
        $(
            $(#[doc = $top_meaning:literal])*
            $top:ident: $top_field:ty $(as $top_kind:ty)? $([$($top_rule:tt)*])? = $top_default:expr;
        )*
    }
    $(
        $(#[doc = $about:literal])*
        $section:ident: $Section:ident {
            $(
                $(#[doc = $meaning:literal])*
                $key:ident: $field:ty $(as $kind:ty)? $([$($rule:tt)*])? = $default:expr;
            )*
        }
    )*) => {
        $(
            $(#[doc = $about])*
            #[derive(Clone, Debug, PartialEq)]
            pub struct $Section { $(
                $(#[doc = $meaning])*
                pub $key: $field,
            )* }
        )*

        /// A node's configuration: every key with its effective value, and where each came from.
        #[derive(Clone, Debug)]
        pub struct Config {
            /// What the node is for; only changes defaults.
            pub role: Role,
            $($(#[doc = $top_meaning])* pub $top: $top_field,)*
            $($(#[doc = $about])* pub $section: $Section,)*
            pub(super) sources: std::collections::BTreeMap<&'static str, super::Source>,
        }

        /// All keys, in the order of the sections.
        pub(crate) const KEYS: &[super::table::Key] = &[
            super::table::Key {
                name: "role",
                live: false,
            },
            $(super::table::Key {
                name: stringify!($top),
                live: super::table::live!($($($top_rule)*)?),
            },)*
            $($(super::table::Key {
                name: concat!(stringify!($section), ".", stringify!($key)),
                live: super::table::live!($($($rule)*)?),
            },)*)*
        ];

        impl Config {
            /// The defaults of a role.
            pub fn for_role($role: Role) -> Self {
                Self {
                    role: $role,
                    $($top: $top_default,)*
                    $($section: $Section { $($key: $default),* },)*
                    sources: std::collections::BTreeMap::new(),
                }
            }

            pub(super) fn visit(&mut self, visitor: &mut impl super::table::Visitor) {
                visitor.key::<Role>("role", &mut self.role, &|_| None);
                $(visitor.key::<super::table::kind!($top_field $(, $top_kind)?)>(
                    stringify!($top),
                    &mut self.$top,
                    &super::table::bounds!(super::table::kind!($top_field $(, $top_kind)?); $($($top_rule)*)?),
                );)*
                $($(visitor.key::<super::table::kind!($field $(, $kind)?)>(
                    concat!(stringify!($section), ".", stringify!($key)),
                    &mut self.$section.$key,
                    &super::table::bounds!(super::table::kind!($field $(, $kind)?); $($($rule)*)?),
                );)*)*
            }

            /// The keys whose values differ from those of `other`.
            pub(super) fn differing(&self, other: &Self) -> Vec<&'static super::table::Key> {
                let mut differs = vec![self.role != other.role];
                $(differs.push(self.$top != other.$top);)*
                $($(differs.push(self.$section.$key != other.$section.$key);)*)*
                KEYS.iter().zip(differs).filter_map(|(key, differs)| differs.then_some(key)).collect()
            }
        }
    };
}

pub(crate) use {bounds, kind, live, sections};
