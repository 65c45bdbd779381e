//! Names that random objects share, so that they meet.

pub(crate) const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];
pub(crate) const NAMESPACES: [&str; 3] = ["default", "prod", "test"];
/// Values of the label `level`, for `Gt` and `Lt`; one is no number.
pub(crate) const LEVELS: [&str; 4] = ["1", "5", "10", "high"];
/// Claims are called `claim-0` … ; the last one never exists.
pub(crate) const CLAIMS: usize = 7;
