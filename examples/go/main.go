// Prints the distance between the largest faces of two photographs: verify EMBEDDER DETECTOR A B
package main

/*
#cgo pkg-config: facenet-c
#include <facenet/facenet.h>
#include <stdlib.h>

// The macros of C, as functions.
static facenet_error new_error(void) { facenet_error error = FACENET_ERROR_INIT; return error; }
static facenet_model_info new_info(void) { facenet_model_info info = FACENET_MODEL_INFO_INIT; return info; }
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"unsafe"
)

// check turns a code into an error of Go.
func check(code C.facenet_code, failure *C.facenet_error) error {
	if code == C.FACENET_OK {
		return nil
	}
	var text [C.FACENET_MESSAGE_SIZE]C.char
	C.facenet_error_message(failure, &text[0], C.FACENET_MESSAGE_SIZE)
	return errors.New(C.GoString(&text[0]))
}

// engine finds faces and embeds them.
type engine struct {
	embedder *C.facenet_embedder
	detector *C.facenet_detector
	dim      int
}

func load(embedder, detector string) (*engine, error) {
	e, failure, info := &engine{}, C.new_error(), C.new_info()
	path := C.CString(embedder)
	defer C.free(unsafe.Pointer(path))
	if err := check(C.facenet_embedder_load(path, nil, &e.embedder, &failure), &failure); err != nil {
		return nil, err
	}
	other := C.CString(detector)
	defer C.free(unsafe.Pointer(other))
	if err := check(C.facenet_detector_load(other, nil, &e.detector, &failure), &failure); err != nil {
		e.free()
		return nil, err
	}
	if err := check(C.facenet_embedder_info(e.embedder, &info, &failure), &failure); err != nil {
		e.free()
		return nil, err
	}
	e.dim = int(info.embedding_dim)
	return e, nil
}

func (e *engine) free() {
	C.facenet_embedder_free(e.embedder)
	C.facenet_detector_free(e.detector)
}

// largest embeds the largest face of a photograph; nil: there is none.
func (e *engine) largest(path string) ([]float32, error) {
	failure := C.new_error()
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var photograph, crop *C.facenet_image
	if err := check(C.facenet_image_read(name, &photograph, &failure), &failure); err != nil {
		return nil, err
	}
	defer C.facenet_image_free(photograph)
	// In C's memory: cgo passes no pointer to a Go structure that holds a pointer.
	pixels := (*C.facenet_picture)(C.calloc(1, C.sizeof_facenet_picture))
	defer C.free(unsafe.Pointer(pixels))
	if err := check(C.facenet_image_pixels(photograph, pixels, &failure), &failure); err != nil {
		return nil, err
	}
	var faces [100]C.facenet_face
	var found C.size_t
	if err := check(C.facenet_detect(e.detector, pixels, &faces[0], 100, &found, &failure), &failure); err != nil {
		return nil, err
	}
	if found == 0 {
		return nil, nil
	}
	if err := check(C.facenet_crop_face(e.embedder, pixels, &faces[0], &crop, &failure), &failure); err != nil {
		return nil, err
	}
	defer C.facenet_image_free(crop)
	if err := check(C.facenet_image_pixels(crop, pixels, &failure), &failure); err != nil {
		return nil, err
	}
	embedding := make([]float32, e.dim)
	out := (*C.float)(unsafe.Pointer(&embedding[0]))
	err := check(C.facenet_embed(e.embedder, pixels, 1, out, C.size_t(e.dim), &failure), &failure)
	return embedding, err
}

func distance(a, b []float32) (float64, error) {
	failure, result := C.new_error(), C.double(0)
	err := check(C.facenet_distance(C.FACENET_EUCLIDEAN, (*C.float)(unsafe.Pointer(&a[0])), (*C.float)(unsafe.Pointer(&b[0])),
		C.size_t(len(a)), &result, &failure), &failure)
	return float64(result), err
}

func run(files []string) (int, error) {
	e, err := load(files[0], files[1])
	if err != nil {
		return 2, err
	}
	defer e.free()
	var embeddings [][]float32
	for _, file := range files[2:] {
		embedding, err := e.largest(file)
		if err != nil {
			return 2, err
		}
		if embedding == nil {
			return 1, fmt.Errorf("%s: there is no face in it", file)
		}
		embeddings = append(embeddings, embedding)
	}
	d, err := distance(embeddings[0], embeddings[1])
	if err != nil {
		return 2, err
	}
	fmt.Printf("%.4f\n", d)
	return 0, nil
}

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: verify EMBEDDER DETECTOR A B")
		os.Exit(2)
	}
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "verify: %v.\n", err)
	}
	os.Exit(status)
}
