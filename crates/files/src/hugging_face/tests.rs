use super::*;
use crate::golden::{backing, golden, test_input};
use crate::{Outgoing, gguf};
use proptest::prelude::*;
use serde_json::json;

/// Tensors of `f32`, filled by [`test_input`] with salts that count from 1.
fn filled(list: &[(String, Vec<usize>)]) -> Tensors {
    let mut tensors = Tensors::default();
    for (salt, (name, shape)) in list.iter().enumerate() {
        let values = test_input(shape.iter().product(), salt + 1);
        tensors.insert(name, Dtype::F32, shape, f32_bytes(Dtype::F32, &values).unwrap()).unwrap();
    }
    tensors
}

/// The tensors of one block and what is around it, `D` 8, `F` 6, `V` 5.
fn llama_tensors(heads: usize, kv_heads: usize, head_dim: usize, more: &[(&str, usize)]) -> Tensors {
    let (q, kv) = (heads * head_dim, kv_heads * head_dim);
    let of = |name: &str, shape: &[usize]| (name.to_string(), shape.to_vec());
    let mut list = vec![of("model.embed_tokens.weight", &[5, 8]), of("model.norm.weight", &[8])];
    for (name, shape) in [
        ("input_layernorm", &[8][..]),
        ("self_attn.q_proj", &[q, 8]),
        ("self_attn.k_proj", &[kv, 8]),
        ("self_attn.v_proj", &[kv, 8]),
        ("self_attn.o_proj", &[8, q]),
        ("post_attention_layernorm", &[8]),
        ("mlp.gate_proj", &[6, 8]),
        ("mlp.up_proj", &[6, 8]),
        ("mlp.down_proj", &[8, 6]),
    ] {
        list.push(of(&format!("model.layers.0.{name}.weight"), shape));
    }
    list.extend(more.iter().map(|(name, size)| of(&format!("model.layers.0.self_attn.{name}"), &[*size])));
    filled(&list)
}

fn llama_config(model_type: &str, heads: usize, kv_heads: usize, head_dim: usize) -> Value {
    json!({
        "model_type": model_type, "max_position_embeddings": 64, "hidden_size": 8, "num_hidden_layers": 1,
        "intermediate_size": 6, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim,
        "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "vocab_size": 5, "tie_word_embeddings": true,
    })
}

fn gpt2() -> HuggingFace {
    let of = |name: &str, shape: &[usize]| (format!("transformer.{name}"), shape.to_vec());
    let list = [
        of("wte.weight", &[5, 4]),
        of("wpe.weight", &[6, 4]),
        of("h.0.ln_1.weight", &[4]),
        of("h.0.ln_1.bias", &[4]),
        of("h.0.attn.c_attn.weight", &[4, 12]),
        of("h.0.attn.c_attn.bias", &[12]),
        of("h.0.attn.c_proj.weight", &[4, 4]),
        of("h.0.mlp.c_fc.weight", &[4, 16]),
        of("h.0.mlp.c_proj.weight", &[16, 4]),
        of("ln_f.weight", &[4]),
    ];
    let config = json!({
        "model_type": "gpt2", "n_positions": 6, "n_embd": 4, "n_layer": 1, "n_head": 2, "n_inner": null,
        "layer_norm_epsilon": 1e-5, "vocab_size": 5,
    });
    HuggingFace { config, tensors: filled(&list) }
}

/// The model as it is read from the GGUF file that it was written to.
fn through_gguf(model: HuggingFace) -> (Gguf, HuggingFace) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let (metadata, tensors) = model.to_gguf(Path::new("config.json")).unwrap();
    gguf::save(&path, &metadata, Outgoing::all(&tensors)).unwrap();
    let gguf = Gguf::parse(Path::new("m.gguf"), backing(&fs_err::read(&path).unwrap())).unwrap();
    let back = HuggingFace::from_gguf(gguf.clone()).unwrap();
    (gguf, back)
}

fn assert_same(found: &Tensors, expected: &Tensors) {
    assert_eq!(found.len(), expected.len());
    for info in expected.infos() {
        assert_eq!(found.info(&info.name).unwrap().shape, info.shape, "{}", info.name);
        assert_eq!(found.f32(&info.name).unwrap(), expected.f32(&info.name).unwrap(), "{}", info.name);
    }
}

#[test]
fn every_architecture_comes_back_from_gguf() {
    let biases = [("q_proj.bias", 16), ("k_proj.bias", 8), ("v_proj.bias", 8)];
    let norms = [("q_norm.weight", 4), ("k_norm.weight", 4)];
    for (model_type, more) in [("llama", &biases[..]), ("qwen2", &biases), ("qwen3", &norms), ("llama", &[])] {
        let (config, tensors) = (llama_config(model_type, 4, 2, 4), llama_tensors(4, 2, 4, more));
        let (_, back) = through_gguf(HuggingFace { config: config.clone(), tensors: tensors.clone() });
        assert_same(&back.tensors, &tensors);
        assert_eq!(back.config["model_type"], config["model_type"]);
        assert_eq!(back.config["tie_word_embeddings"], true);
    }
    let (_, back) = through_gguf(gpt2());
    assert_same(&back.tensors, &gpt2().tensors);
}

#[test]
fn what_llama_cpp_converted_is_in_hugging_faces_order_again() {
    let model = HuggingFace::from_gguf(Gguf::load(&golden("llama.gguf")).unwrap()).unwrap();
    for (name, salt, size) in [("q", 3, 64), ("k", 4, 32), ("v", 5, 32), ("o", 6, 64)] {
        let name = format!("model.layers.0.self_attn.{name}_proj.weight");
        assert_eq!(model.tensors.f32(&name).unwrap(), test_input(size, salt), "{name}");
    }
    assert_eq!(model.tensors.f32("model.norm.weight").unwrap(), test_input(8, 11));
    assert_eq!(model.tensors.info("model.layers.0.mlp.down_proj.weight").unwrap().dtype, Dtype::Q8_0);
    assert_eq!(model.tensors.len(), 11);
    let expected = json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "bos_token_id": 1, "head_dim": 4,
        "hidden_act": "silu", "hidden_size": 8, "intermediate_size": 32, "max_position_embeddings": 64,
        "model_type": "llama", "num_attention_heads": 2, "num_hidden_layers": 1, "num_key_value_heads": 1,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true, "vocab_size": 5,
    });
    assert_eq!(model.config, expected);
}

#[test]
fn only_llamas_rows_are_interleaved_in_gguf() {
    let tensors = llama_tensors(2, 1, 4, &[]);
    let stored = |model_type| {
        let model = HuggingFace { config: llama_config(model_type, 2, 1, 4), tensors: tensors.clone() };
        through_gguf(model).0.tensors.f32("blk.0.attn_q.weight").unwrap()
    };
    let q = tensors.f32("model.layers.0.self_attn.q_proj.weight").unwrap();
    assert_eq!(stored("qwen2"), q);
    let rows = [0, 2, 1, 3, 4, 6, 5, 7].iter().flat_map(|row| q[row * 8..(row + 1) * 8].to_vec());
    assert_eq!(stored("llama"), rows.collect::<Vec<f32>>());
}

#[test]
fn gpt2s_layers_are_transposed_in_gguf() {
    let (gguf, _) = through_gguf(gpt2());
    assert_eq!(gguf.tensors.info("blk.0.attn_qkv.weight").unwrap().shape, [12, 4]);
    assert_eq!(gguf.metadata.u64("gpt2.feed_forward_length").unwrap(), 16);
    let (stored, whole) = (gguf.tensors.f32("blk.0.ffn_up.weight").unwrap(), test_input(64, 8));
    assert!((0..64).all(|i| stored[i] == whole[i % 4 * 16 + i / 4]));
}

#[test]
fn llama3s_factors_are_written_and_read() {
    let mut config = llama_config("llama", 1, 1, 64);
    config["rope_scaling"] = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    let model = HuggingFace { config: config.clone(), tensors: llama_tensors(1, 1, 64, &[]) };
    let (gguf, back) = through_gguf(model);
    assert_eq!(gguf.tensors.info(ROPE_FACTORS).unwrap().shape, [32]);
    assert_eq!(back.config["rope_scaling"], config["rope_scaling"]);
    assert!(!back.tensors.contains(ROPE_FACTORS));
}

#[test]
fn a_tied_heads_copy_and_old_tables_are_left_out() {
    let (config, mut tensors) = (llama_config("llama", 4, 2, 4), llama_tensors(4, 2, 4, &[]));
    let expected = tensors.clone();
    tensors.insert("lm_head.weight", Dtype::F32, &[1], vec![0; 4]).unwrap();
    tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq", Dtype::F32, &[1], vec![0; 4]).unwrap();
    let (_, back) = through_gguf(HuggingFace { config: config.clone(), tensors: tensors.clone() });
    assert_same(&back.tensors, &expected);
    let mut untied = config;
    untied["tie_word_embeddings"] = false.into();
    let (_, back) = through_gguf(HuggingFace { config: untied, tensors });
    assert!(back.tensors.contains("lm_head.weight") && back.config["tie_word_embeddings"] == false);
}

#[test]
fn what_does_not_fit_is_named() {
    let message = |config: Value, tensors: Tensors| {
        HuggingFace { config, tensors }.to_gguf(Path::new("config.json")).unwrap_err().to_string()
    };
    let mut odd = llama_tensors(4, 2, 4, &[]);
    odd.insert("model.layers.0.mlp.experts.0.weight", Dtype::F32, &[1], vec![0; 4]).unwrap();
    insta::assert_snapshot!(message(llama_config("llama", 4, 2, 4), odd), @r"
    config.json: tensor `model.layers.0.mlp.experts.0.weight` is not one of a llama
    hint: the model is a variant that is not supported
    ");
    insta::assert_snapshot!(message(llama_config("llama", 3, 2, 4), llama_tensors(4, 2, 4, &[])), @r"
    config.json: key `head_dim` is 4 of each of 3 heads, expected an even size that gives, with all heads, the rows of the projections
    hint: correct it, or take the file from where the model comes from again
    ");
    let mut quantized = gpt2();
    quantized.tensors.insert("h.1.mlp.c_fc.weight", Dtype::Q8_0, &[1, 32], vec![0; 34]).unwrap();
    insta::assert_snapshot!(message(quantized.config, quantized.tensors), @r"
    config.json: tensor `blk.1.ffn_up.weight`, Q8_0 [1, 32]: only a matrix of plain numbers can be transposed
    hint: convert the model to F16 or F32 instead
    ");
}

#[test]
fn the_books_gpt_becomes_hugging_faces() {
    let of = |name: &str, shape: &[usize]| (name.to_string(), shape.to_vec());
    let list = [
        of("tok_emb.weight", &[5, 2]),
        of("trf_blocks.0.att.W_query.weight", &[2, 2]),
        of("trf_blocks.0.att.W_key.weight", &[2, 2]),
        of("trf_blocks.0.att.W_value.weight", &[2, 2]),
        of("trf_blocks.0.att.W_query.bias", &[2]),
        of("trf_blocks.0.att.W_key.bias", &[2]),
        of("trf_blocks.0.att.W_value.bias", &[2]),
        of("trf_blocks.0.ff.layers.0.weight", &[8, 2]),
        of("trf_blocks.0.norm1.scale", &[2]),
        of("trf_blocks.0.att.mask", &[4, 4]),
        of("out_head.weight", &[5, 2]),
    ];
    // As one file, since queries, keys and values must be.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("book.safetensors");
    let save = |skip: &str| {
        let book = filled(&list);
        let kept = Outgoing::all(&book).filter(|tensor| tensor.name != skip);
        crate::safetensors::save(&path, &BTreeMap::new(), kept).unwrap();
        from_book(crate::Safetensors::load(&path).unwrap().tensors)
    };
    let tensors = save("").unwrap();
    assert_eq!(tensors.len(), 6);
    assert_eq!(tensors.f32("transformer.wte.weight").unwrap(), test_input(10, 1));
    assert_eq!(tensors.f32("lm_head.weight").unwrap(), test_input(10, 11));
    let [q, k, v] = [2, 3, 4].map(|salt| test_input(4, salt));
    // Column j of the fused layer is row j of the three below each other.
    let fused = [q[0], q[2], k[0], k[2], v[0], v[2], q[1], q[3], k[1], k[3], v[1], v[3]];
    assert_eq!(tensors.info("transformer.h.0.attn.c_attn.weight").unwrap().shape, [2, 6]);
    assert_eq!(tensors.f32("transformer.h.0.attn.c_attn.weight").unwrap(), fused);
    let bias = [5, 6, 7].map(|salt| test_input(2, salt)).concat();
    assert_eq!(tensors.f32("transformer.h.0.attn.c_attn.bias").unwrap(), bias);
    assert_eq!(tensors.info("transformer.h.0.mlp.c_fc.weight").unwrap().shape, [2, 8]);
    let place = folder.path().display().to_string();
    let message = |error: FilesError| error.to_string().replace(&format!("{place}/"), "");
    insta::assert_snapshot!(message(save("trf_blocks.0.att.W_key.bias").unwrap_err()), @r"
    book.safetensors: tensor `trf_blocks.0.att.W_key.bias` is missing
    hint: it has 10 others, such as `out_head.weight`
    ");
    let odd = filled(&[of("head.weight", &[1])]);
    assert!(from_book(odd).unwrap_err().to_string().contains("`head.weight` is not one of a book's GPT"));
}

proptest! {
    // Each case writes and syncs a file.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn from_gguf_undoes_to_gguf(heads in 1_usize..5, kv_heads in 1_usize..5, half in 1_usize..5) {
        let (config, tensors) = (llama_config("llama", heads, kv_heads, 2 * half), llama_tensors(heads, kv_heads, 2 * half, &[]));
        let (_, back) = through_gguf(HuggingFace { config, tensors: tensors.clone() });
        assert_same(&back.tensors, &tensors);
    }
}
