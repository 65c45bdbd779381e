//! What is written of a run beside the result: its minutes as CSV, and a picture of them.

use std::{
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

use smartscale_backtest::Series;

use super::plot;

/// Where what is written of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) series: Option<PathBuf>,
    pub(super) plot: Option<PathBuf>,
}

impl Files {
    /// As they were named or, of one of several runs (its index and their number), with a number before the ending.
    pub(super) fn new(series: Option<&Path>, plot: Option<&Path>, number: Option<(usize, usize)>) -> Self {
        let file = |path: &Path| match number {
            Some((index, count)) => numbered(path, index, count),
            None => path.to_owned(),
        };
        Self {
            series: series.map(file),
            plot: plot.map(file),
        }
    }

    /// Writes them.
    ///
    /// # Errors
    /// The file, and why it could not be.
    pub(super) fn write(&self, series: &Series) -> Result<(), String> {
        let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        if let Some(path) = &self.series {
            let file = File::create(path).map_err(|error| failed(path, error))?;
            let written = series.write_csv(BufWriter::new(file));
            written.map_err(|error| failed(path, error))?;
        }
        if let Some(path) = &self.plot {
            let picture = plot::Kind::of(path).and_then(|kind| plot::draw(kind, series));
            let picture = picture.map_err(|error| format!("{}: {error}", path.display()))?;
            fs::write(path, picture).map_err(|error| failed(path, error))?;
        }
        Ok(())
    }
}

/// `out.csv` becomes `out-1.csv`, and `out-01.csv` where there are more than nine: sorted by name they are in order.
fn numbered(path: &Path, index: usize, count: usize) -> PathBuf {
    let width = count.to_string().len();
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{:0width$}", index + 1));
    if let Some(ending) = path.extension() {
        name.push(".");
        name.push(ending);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_several_runs_have_a_number_before_the_ending_by_which_they_sort() {
        for (path, index, count, expected) in [
            ("out.csv", 0, 2, "out-1.csv"),
            ("a.b/out.x.svg", 8, 9, "a.b/out.x-9.svg"),
            ("out", 1, 10, "out-02"),
            ("/out.png", 63, 64, "/out-64.png"),
        ] {
            assert_eq!(numbered(Path::new(path), index, count), Path::new(expected));
        }
    }
}
