//! Names that somebody may have meant.

/// So much alike must a name be, as clap asks of its own suggestions.
const ALIKE: f64 = 0.7;

/// So many are suggested.
const MOST: usize = 3;

/// What was probably meant by a pod or node that does not exist: the same name in another namespace, then what is spelt
/// alike. Empty if nothing comes near.
pub(super) fn meant<'n>(asked: &str, known: impl Iterator<Item = &'n str>) -> String {
    let bare = |name: &str| name.rsplit_once('/').map_or(name, |(_, bare)| bare).to_owned();
    let rank = |name: &str| {
        if bare(name) == bare(asked) {
            1.0
        } else {
            strsim::jaro(name, asked)
        }
    };
    let mut alike: Vec<(f64, &str)> = known
        .map(|name| (rank(name), name))
        .filter(|(rank, _)| *rank > ALIKE)
        .collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let names: Vec<String> = alike
        .iter()
        .take(MOST)
        .map(|(_, name)| format!("`{name}`"))
        .collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => format!("; did you mean {one}?"),
        [most @ .., last] => format!("; did you mean {} or {last}?", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_elsewhere_comes_first_then_what_is_spelt_alike() {
        let known = ["default/web-1", "shop/web-7", "kube-system/coredns-x"];
        assert_eq!(
            meant("default/web-7", known.into_iter()),
            "; did you mean `shop/web-7` or `default/web-1`?"
        );
        assert_eq!(meant("x", known.into_iter()), "");
    }
}
