import facenet = require('facenet-web');

export const load = (weights: string): Promise<facenet.FaceNet> => facenet.FaceNet.load({weights});
