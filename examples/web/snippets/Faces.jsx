// React: the faces of a photograph, in thirty lines. The engine is loaded once for all components.
import {useEffect, useRef, useState} from 'react';
import {FaceNet, drawFaces} from 'facenet-web';

let loading;
const load = () => (loading ??= FaceNet.load({weights: '/weights/facenet.safetensors'}));

export function Faces({file}) {
  const canvas = useRef(null);
  const [text, setText] = useState('');
  useEffect(() => {
    if (!file) return undefined;
    const abort = new AbortController(), {signal} = abort;
    (async () => {
      setText('Looking for faces…');
      const net = await load();
      const [bitmap, faces] = await Promise.all([createImageBitmap(file), net.detect(file, {signal})]);
      signal.throwIfAborted();
      canvas.current.width = bitmap.width;
      canvas.current.height = bitmap.height;
      canvas.current.getContext('2d').drawImage(bitmap, 0, 0);
      drawFaces(canvas.current, faces);
      setText(`${faces.length} faces`);
    })().catch((error) => signal.aborted || setText(error.message));
    return () => abort.abort();
  }, [file]);
  return <figure><canvas ref={canvas} /><figcaption aria-live="polite">{text}</figcaption></figure>;
}
