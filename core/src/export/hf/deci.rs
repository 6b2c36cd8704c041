//! A folder of the type `nemotron-nas`, whose layers may lack a block: what `model/block_configs.rs` describes, with Llama's tensors
//! of the blocks that are left.

use serde_json::{Map, Value, json};

use super::{Content, HfOptions, HfSource, OutputTensor, config, kept_type};
use crate::export::ExportError;
use crate::model::family::TensorRef;
use crate::model::{BlockSet, ModelSpec, block_configs};
use crate::weights::FloatType;

/// Name of the Python module by which transformers loads such a folder, without `.py`. It rests on that of other folders whose
/// blocks are gone.
const MODULE: &str = "modeling_deci";
/// Its file.
pub(super) const REMOTE_CODE: &str = "modeling_deci.py";

/// The Python files.
pub(super) fn remote_code(target: &ModelSpec) -> [(String, Vec<u8>); 2] {
    let module = include_str!("../remote_code/modeling_deci.py").replace("@TYPE@", block_configs::TYPE);
    [
        (config::REMOTE_CODE.to_string(), config::remote_code(target.family).into_bytes()),
        (REMOTE_CODE.to_string(), module.into_bytes()),
    ]
}

impl HfSource<'_> {
    /// Whether [`HfFormat::Deci`](super::HfFormat::Deci) can be written.
    ///
    /// # Errors
    /// A model that computes more than Llama, or has sizes that such a config.json cannot say; a model of images and text.
    pub fn check_deci(&self) -> Result<(), ExportError> {
        self.deci(&BlockSet::new()).map(drop)
    }

    /// The model of such a folder without the blocks in `gone`.
    pub(super) fn deci(&self, gone: &BlockSet) -> Result<ModelSpec, ExportError> {
        if !self.stored_names.is_empty() {
            return Err(ExportError::Composite);
        }
        let target = block_configs::of_spec(self.spec).map_err(|what| ExportError::NotDeci { what })?;
        Ok(ModelSpec { absent: gone.clone(), ..target })
    }
}

/// The tensors, sorted by name. Their rows are those of [`ModelSpec::in_order`].
pub(super) fn select(
    source: &HfSource<'_>,
    options: &HfOptions,
    target: &ModelSpec,
) -> Result<Vec<OutputTensor>, ExportError> {
    source.spec.check(source.weights)?;
    let mut outputs = copied(source, options, &target.outer_tensors(), &source.spec.outer_tensors())?;
    for block in target.blocks() {
        let (tensors, from) = (target.block_tensors(block), source.spec.block_tensors(block));
        outputs.extend(copied(source, options, &tensors, &from)?);
    }
    outputs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(outputs)
}

fn copied(
    source: &HfSource<'_>,
    options: &HfOptions,
    tensors: &[TensorRef],
    from: &[TensorRef],
) -> Result<Vec<OutputTensor>, ExportError> {
    let output = |tensor: &TensorRef| {
        let of_role = |bias: bool| {
            let mut found = from.iter().filter(|found| found.role == tensor.role && found.bias == bias);
            found.find(|found| !found.plus_one && !found.transposed)
        };
        // A bias that the model does not have is zero.
        let (Some(found), content) = (match of_role(tensor.bias) {
            Some(found) => {
                let (rows, columns) = (found.rows.clone(), found.columns.unwrap_or(1));
                (Some(found), Content::Part { rows, columns })
            }
            None => (of_role(false).filter(|_| tensor.bias), Content::Constant(0.0)),
        }) else {
            let what = format!("it has no place for {}", tensor.name);
            return Err(ExportError::NotDeci { what });
        };
        let stored = source.weights.require_type(&found.name)?;
        Ok(OutputTensor {
            source: found.name.clone(),
            name: tensor.name.clone(),
            written: tensor.name.clone(),
            dtype: options.dtype.unwrap_or(kept_type(stored)),
            shape: [Some(tensor.rows.len()), tensor.columns].into_iter().flatten().collect(),
            content,
        })
    };
    tensors.iter().map(output).collect()
}

/// The config.json, made of what the model is: readers differ in what they assume for keys that are left out.
pub(super) fn config(target: &ModelSpec, dtype: FloatType) -> Map<String, Value> {
    let mut config = target.to_config(dtype);
    config.insert("model_type".to_string(), block_configs::TYPE.into());
    config.insert("architectures".to_string(), json!([block_configs::CLASS]));
    let auto_map = json!({
        "AutoConfig": format!("{MODULE}.BlockPrunerDeciLMConfig"),
        "AutoModelForCausalLM": format!("{MODULE}.BlockPrunerDeciLMForCausalLM"),
    });
    config.insert("auto_map".to_string(), auto_map);
    if target.eos_token_ids.len() > 1 {
        config.insert("eos_token_id".to_string(), json!(target.eos_token_ids));
    }
    config.insert(block_configs::KEY.to_string(), block_configs::written(target, &target.absent));
    config
}
