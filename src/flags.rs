//! Sets of flags in one word, each of a type of its own, so that two kinds cannot be mixed.

/// Declares a set of flags in a word: a constant for each flag, and what all sets need. A set that
/// changes in place has its own methods for that, beside its declaration.
macro_rules! flag_set {
    ($(#[$doc:meta])* $set:ident: $word:ty {
        $($(#[$flag_doc:meta])* $flag:ident = $bit:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Copy, Clone, Default, PartialEq, Eq)]
        pub(crate) struct $set($word);

        impl $set {
            $($(#[$flag_doc])* pub(crate) const $flag: Self = Self(1 << $bit);)*

            /// The union of this set and `other`.
            pub(crate) const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// Whether any of `flags` is in the set.
            #[inline(always)]
            pub(crate) const fn has(self, flags: Self) -> bool {
                self.bits() & flags.bits() != 0
            }

            #[inline(always)]
            pub(crate) const fn bits(self) -> $word {
                self.0
            }
        }

        impl std::fmt::Debug for $set {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut names = f.debug_set();
                $(if self.has(Self::$flag) {
                    names.entry(&format_args!(stringify!($flag)));
                })*
                names.finish()
            }
        }
    };
}

pub(crate) use flag_set;
