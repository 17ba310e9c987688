//! Golden tests: readable files in a folder, each of which a scene of its own plays.

/// A test for each named file of `folder` (below this crate's), played by a new `scene`; and one that no file lacks its
/// test. `UPDATE_GOLDENFILES=1` writes what happens now.
macro_rules! golden {
    ($folder:literal, $scene:expr, $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let file = concat!(env!("CARGO_MANIFEST_DIR"), "/", $folder, "/", stringify!($name));
                goldenscript::run(&mut $scene, file).unwrap();
            }
        )*

        #[test]
        fn every_file_has_its_test() {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/", $folder);
            let files = std::fs::read_dir(folder).unwrap();
            let mut files: Vec<_> = files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            files.sort();
            let mut known = vec![$(stringify!($name)),*];
            known.sort_unstable();
            assert_eq!(files, known);
        }
    };
}

pub(crate) use golden;
