'use client';
import {useEffect} from 'react';

import {answer} from '../app.js';

export default function Page() {
  useEffect(() => {
    answer('/weights/small.safetensors')
      .catch((error) => ({error: `${error.code}: ${error.message}`}))
      .then((given) => { document.body.dataset.answer = JSON.stringify(given); });
  }, []);
  return <p>facenet-web in Next.js</p>;
}
