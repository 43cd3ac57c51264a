//! Prints the distance between the largest faces of two photographs: verify EMBEDDER DETECTOR A B
mod facenet;

use std::process::exit;

fn distance(files: &[String]) -> Result<Option<f64>, facenet::Error> {
    let embedder = facenet::Embedder::load(&files[0])?;
    let detector = facenet::Detector::load(&files[1])?;
    let mut embeddings = Vec::new();
    for file in &files[2..] {
        let photograph = facenet::Image::read(file)?;
        match detector.detect(&photograph)?.first() {
            Some(face) => embeddings.push(embedder.embed(&photograph, face)?),
            None => return Ok(None),
        }
    }
    facenet::distance(&embeddings[0], &embeddings[1]).map(Some)
}

fn main() {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.len() != 4 {
        eprintln!("usage: verify EMBEDDER DETECTOR A B");
        exit(2);
    }
    match distance(&files) {
        Ok(Some(distance)) => println!("{distance:.4}"),
        Ok(None) => {
            eprintln!("verify: one of the pictures has no face.");
            exit(1);
        }
        Err(error) => {
            eprintln!("verify: {error}.");
            exit(2);
        }
    }
}
