//! What verify needs of facenet.h, written by hand, and objects over it that free themselves.
use std::ffi::{CStr, CString};
use std::fmt;
use std::mem::size_of;
use std::os::raw::{c_char, c_void};
use std::ptr;

#[repr(C)]
struct CError {
    struct_size: u32,
    code: i32,
    offset: i64,
    sentence: [c_char; 512],
    place: [c_char; 384],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Picture {
    pixels: *const u8,
    size: usize,
    width: i32,
    height: i32,
    stride: usize,
    format: i32,
    reserved: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Face {
    pub bounds: [f32; 4],
    pub score: f32,
    pub landmarks: [[f32; 2]; 5],
}

/// The first members of facenet_model_info: the library writes no further than struct_size.
#[repr(C)]
#[derive(Default)]
struct ModelInfo {
    struct_size: u32,
    embedding_dim: i32,
}

type Options = *const c_void; // null: the defaults

extern "C" {
    fn facenet_error_message(error: *const CError, out: *mut c_char, size: usize) -> usize;
    fn facenet_image_read(path: *const c_char, image: *mut *mut c_void, error: *mut CError) -> i32;
    fn facenet_image_pixels(image: *mut c_void, picture: *mut Picture, error: *mut CError) -> i32;
    fn facenet_image_free(image: *mut c_void) -> i32;
    fn facenet_detector_load(path: *const c_char, options: Options, detector: *mut *mut c_void, error: *mut CError) -> i32;
    fn facenet_detect(detector: *mut c_void, picture: *const Picture, faces: *mut Face, capacity: usize, found: *mut usize,
                      error: *mut CError) -> i32;
    fn facenet_detector_free(detector: *mut c_void) -> i32;
    fn facenet_embedder_load(path: *const c_char, options: Options, embedder: *mut *mut c_void, error: *mut CError) -> i32;
    fn facenet_embedder_info(embedder: *mut c_void, info: *mut ModelInfo, error: *mut CError) -> i32;
    fn facenet_embed(embedder: *mut c_void, faces: *const Picture, count: usize, out: *mut f32, out_size: usize,
                     error: *mut CError) -> i32;
    fn facenet_embedder_free(embedder: *mut c_void) -> i32;
    fn facenet_crop_face(embedder: *mut c_void, picture: *const Picture, face: *const Face, crop: *mut *mut c_void,
                         error: *mut CError) -> i32;
    fn facenet_distance(metric: i32, a: *const f32, b: *const f32, dim: usize, distance: *mut f64, error: *mut CError) -> i32;
}

const EUCLIDEAN: i32 = 1;

/// "place: sentence".
#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

fn call(function: impl FnOnce(*mut CError) -> i32) -> Result<(), Error> {
    let mut error = CError { struct_size: size_of::<CError>() as u32, code: 0, offset: -1, sentence: [0; 512], place: [0; 384] };
    if function(&mut error) == 0 {
        return Ok(());
    }
    let mut text: [c_char; 1024] = [0; 1024];
    unsafe { facenet_error_message(&error, text.as_mut_ptr(), text.len()) };
    Err(Error(unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned()))
}

fn text(path: &str) -> Result<CString, Error> {
    CString::new(path).map_err(|_| Error(format!("{path:?}: a name holds no zero byte")))
}

/// A picture in the library's memory.
pub struct Image(*mut c_void);

impl Image {
    pub fn read(path: &str) -> Result<Image, Error> {
        let (path, mut handle) = (text(path)?, ptr::null_mut());
        call(|error| unsafe { facenet_image_read(path.as_ptr(), &mut handle, error) })?;
        Ok(Image(handle))
    }

    fn pixels(&self) -> Result<Picture, Error> {
        let mut picture = Picture { pixels: ptr::null(), size: 0, width: 0, height: 0, stride: 0, format: 0, reserved: 0 };
        call(|error| unsafe { facenet_image_pixels(self.0, &mut picture, error) })?;
        Ok(picture)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        unsafe { facenet_image_free(self.0) };
    }
}

pub struct Detector(*mut c_void);

impl Detector {
    pub fn load(path: &str) -> Result<Detector, Error> {
        let (path, mut handle) = (text(path)?, ptr::null_mut());
        call(|error| unsafe { facenet_detector_load(path.as_ptr(), ptr::null(), &mut handle, error) })?;
        Ok(Detector(handle))
    }

    /// At most 100 faces, the largest first.
    pub fn detect(&self, image: &Image) -> Result<Vec<Face>, Error> {
        let (picture, mut faces, mut found) = (image.pixels()?, vec![Face::default(); 100], 0);
        call(|error| unsafe { facenet_detect(self.0, &picture, faces.as_mut_ptr(), faces.len(), &mut found, error) })?;
        faces.truncate(found);
        Ok(faces)
    }
}

impl Drop for Detector {
    fn drop(&mut self) {
        unsafe { facenet_detector_free(self.0) };
    }
}

pub struct Embedder {
    handle: *mut c_void,
    dim: usize,
}

impl Embedder {
    pub fn load(path: &str) -> Result<Embedder, Error> {
        let (path, mut handle) = (text(path)?, ptr::null_mut());
        call(|error| unsafe { facenet_embedder_load(path.as_ptr(), ptr::null(), &mut handle, error) })?;
        let mut embedder = Embedder { handle, dim: 0 };
        let mut info = ModelInfo { struct_size: size_of::<ModelInfo>() as u32, ..Default::default() };
        call(|error| unsafe { facenet_embedder_info(handle, &mut info, error) })?;
        embedder.dim = info.embedding_dim as usize;
        Ok(embedder)
    }

    pub fn embed(&self, image: &Image, face: &Face) -> Result<Vec<f32>, Error> {
        let (picture, mut handle, mut embedding) = (image.pixels()?, ptr::null_mut(), vec![0.0; self.dim]);
        call(|error| unsafe { facenet_crop_face(self.handle, &picture, face, &mut handle, error) })?;
        let crop = Image(handle);
        let pixels = crop.pixels()?;
        call(|error| unsafe { facenet_embed(self.handle, &pixels, 1, embedding.as_mut_ptr(), embedding.len(), error) })?;
        Ok(embedding)
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        unsafe { facenet_embedder_free(self.handle) };
    }
}

/// Of two embeddings of one model.
pub fn distance(a: &[f32], b: &[f32]) -> Result<f64, Error> {
    let mut distance = 0.0;
    let dim = a.len().min(b.len());
    call(|error| unsafe { facenet_distance(EUCLIDEAN, a.as_ptr(), b.as_ptr(), dim, &mut distance, error) })?;
    Ok(distance)
}
