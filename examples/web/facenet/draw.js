// Boxes, landmarks and names on a canvas.
import {expect} from './errors.js';

/** Draws faces on a 2D context or canvas that shows the picture `scale` times as large. */
export function drawFaces(target, faces, {scale = 1, labels = [], colour = '#4f86ff', landmarks = false} = {}) {
  const context = typeof target?.getContext === 'function' ? target.getContext('2d') : target;
  expect(typeof context?.strokeRect === 'function', 'drawFaces() needs a canvas or its 2D context', target);
  expect(Array.isArray(faces), 'drawFaces() needs the list of faces that detect() gives', faces);
  context.save();
  context.lineWidth = 2;
  context.font = '600 14px system-ui, sans-serif';
  faces.forEach((face, i) => {
    const [x0, y0, x1, y1] = face.box.map((v) => v * scale);
    context.strokeStyle = context.fillStyle = colour;
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    if (landmarks) for (const [x, y] of face.landmarks) context.fillRect(x * scale - 2, y * scale - 2, 4, 4);
    if (!labels[i]) return;
    const top = Math.max(20, y0);  // inside the picture where the face touches its upper edge
    context.fillRect(x0, top - 20, context.measureText(labels[i]).width + 8, 20);
    context.fillStyle = '#000';
    context.fillText(labels[i], x0 + 4, top - 5);
  });
  context.restore();
}
