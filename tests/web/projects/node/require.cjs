const {FaceNet, FaceNetError} = require('facenet-web');

(async () => {
  const net = await FaceNet.load({weights: process.argv[2], threads: 2});
  const data = Uint8Array.from({length: 160 * 160 * 3}, (_, i) => 128 + 100 * Math.sin(i / 97));
  const embedding = [...await net.embed({data, width: 160, height: 160}, {aligned: true})];
  const refused = await FaceNet.load({weights: 5}).catch((error) => error instanceof FaceNetError);
  console.log(JSON.stringify({info: net.info, embedding, refused}));
  net.dispose();
})();
