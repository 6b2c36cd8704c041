//! The pickle of a state dict, read without running anything: of the pickle machine only what `torch.save` writes for tensors by
//! name (opcodes of protocol 2, Python's `pickletools.py` describes them), of Python's names only those in [`Global`].

use std::collections::HashMap;
use std::rc::Rc;

/// Dimensions of a tensor that are followed; more have no meaning in a model.
const MAX_DIMS: usize = 8;

/// Why a pickle is not read.
#[derive(Debug)]
pub(super) enum Stop {
    /// It is no pickle, or a damaged one.
    Malformed(String),
    /// It holds something else than tensors by name.
    Refused(String),
}

fn malformed<T>(reason: String) -> Result<T, Stop> {
    Err(Stop::Malformed(reason))
}

fn refuse<T>(problem: String) -> Result<T, Stop> {
    Err(Stop::Refused(problem))
}

/// What a tensor is a view of.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    /// The type, as safetensors calls it.
    pub dtype: &'static str,
    /// The name of its file in the archive, without the folder.
    pub key: Rc<str>,
}

/// A view of a storage.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub storage: Storage,
    /// In elements, as are strides.
    pub offset: u64,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
}

/// What a pickle may name.
#[derive(Clone, Copy, Debug)]
enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    /// A type of storage, as safetensors calls that of its elements.
    Storage(&'static str),
}

impl Global {
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "FloatStorage") => Self::Storage("F32"),
            ("torch", "HalfStorage") => Self::Storage("F16"),
            ("torch", "BFloat16Storage") => Self::Storage("BF16"),
            ("torch", "DoubleStorage") => Self::Storage("F64"),
            ("torch", "LongStorage") => Self::Storage("I64"),
            ("torch", "IntStorage") => Self::Storage("I32"),
            ("torch", "ShortStorage") => Self::Storage("I16"),
            ("torch", "CharStorage") => Self::Storage("I8"),
            ("torch", "ByteStorage") => Self::Storage("U8"),
            ("torch", "BoolStorage") => Self::Storage("BOOL"),
            _ => return None,
        })
    }
}

/// The number of a value. Values do not own each other: whatever nests or goes round in circles, dropping them is simple.
type Id = usize;

#[derive(Debug)]
enum Value {
    None,
    Bool,
    Integer(i64),
    Text(Rc<str>),
    Tuple(Vec<Id>),
    /// Names and values, those that come again among them.
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage),
    Tensor(Tensor),
}

impl Value {
    fn what(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Text(_) => "a string",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a dict",
            Self::Global(_) => "a function",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

/// The tensors of a state dict by their names, in its order.
pub(super) fn state_dict(bytes: &[u8]) -> Result<Vec<(String, Tensor)>, Stop> {
    let mut machine = Machine { bytes, ..Machine::default() };
    let top = machine.run()?;
    let Value::Dict(entries) = &machine.values[top] else {
        return refuse(format!("it holds {}, not a dict of tensors", machine.values[top].what()));
    };
    let tensor = |(name, value): &(Id, Id)| match (&machine.values[*name], &machine.values[*value]) {
        (Value::Text(name), Value::Tensor(tensor)) => Ok((name.to_string(), tensor.clone())),
        (Value::Text(name), other) => refuse(format!("its entry `{name}` is {}, not a tensor", other.what())),
        (name, _) => refuse(format!("the name of an entry is {}, not a string", name.what())),
    };
    entries.iter().map(tensor).collect()
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// The value that is left in the end.
    fn run(&mut self) -> Result<Id, Stop> {
        loop {
            let at = self.position;
            let [opcode] = self.array()?;
            match opcode {
                // PROTO
                0x80 => match self.array()? {
                    [2] => {}
                    [version] => return refuse(format!("it is pickled by protocol {version}, torch.save's is 2")),
                },
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'N' => self.push(Value::None),
                // NEWTRUE, NEWFALSE
                0x88 | 0x89 => self.push(Value::Bool),
                // BININT, BININT1, BININT2, LONG1
                b'J' => {
                    let number = i32::from_le_bytes(self.array()?);
                    self.push(Value::Integer(number.into()));
                }
                b'K' => {
                    let [number] = self.array()?;
                    self.push(Value::Integer(number.into()));
                }
                b'M' => {
                    let number = u16::from_le_bytes(self.array()?);
                    self.push(Value::Integer(number.into()));
                }
                0x8a => {
                    let number = self.long()?;
                    self.push(Value::Integer(number));
                }
                // BINUNICODE
                b'X' => {
                    let text = self.text()?;
                    self.push(Value::Text(text.into()));
                }
                b'c' => {
                    let global = self.global()?;
                    self.push(Value::Global(global));
                }
                b'}' => self.push(Value::Dict(Vec::new())),
                // EMPTY_TUPLE, TUPLE1 to TUPLE3, TUPLE
                b')' => self.push(Value::Tuple(Vec::new())),
                0x85..=0x87 => {
                    let items = self.pop_many(usize::from(opcode - 0x84))?;
                    self.push(Value::Tuple(items));
                }
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Tuple(items));
                }
                // SETITEM, SETITEMS
                b's' => {
                    let items = self.pop_many(2)?;
                    self.set_items(&items)?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set_items(&items)?;
                }
                // BINPUT, LONG_BINPUT, BINGET, LONG_BINGET
                b'q' => {
                    let [key] = self.array()?;
                    self.memoize(key.into())?;
                }
                b'r' => {
                    let key = u32::from_le_bytes(self.array()?);
                    self.memoize(key)?;
                }
                b'h' => {
                    let [key] = self.array()?;
                    self.recall(key.into())?;
                }
                b'j' => {
                    let key = u32::from_le_bytes(self.array()?);
                    self.recall(key)?;
                }
                // BINPERSID
                b'Q' => {
                    let storage = self.pop()?;
                    let storage = self.storage(storage)?;
                    self.push(Value::Storage(storage));
                }
                // REDUCE
                b'R' => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    self.call(function, arguments)?;
                }
                // BUILD: the attributes of an OrderedDict, which has only `_metadata`: versions of modules.
                b'b' => {
                    self.pop()?;
                    let Some(Value::Dict(_)) = self.stack.last().map(|top| &self.values[*top]) else {
                        return refuse(format!("it sets attributes of something else than a dict at byte {at}"));
                    };
                }
                _ => return refuse(format!("it has the opcode {opcode:#04x} at byte {at}, which no state dict needs")),
            }
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Stop> {
        let taken = self.bytes.get(self.position..).and_then(|rest| rest.get(..len));
        self.position += len;
        taken.map_or_else(|| malformed(format!("it ends within {len} bytes of its pickle")), Ok)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn text(&mut self) -> Result<&'a str, Stop> {
        let len = u32::from_le_bytes(self.array()?);
        let bytes = self.take(len as usize)?;
        std::str::from_utf8(bytes).or_else(|_| malformed("a string in it is not UTF-8".to_string()))
    }

    /// A line of a GLOBAL.
    fn line(&mut self) -> Result<&'a str, Stop> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let Some(len) = rest.iter().position(|byte| *byte == b'\n') else {
            return malformed("it ends within a name".to_string());
        };
        let line = std::str::from_utf8(self.take(len + 1)?);
        line.map(str::trim_end).or_else(|_| malformed("a name in it is not UTF-8".to_string()))
    }

    fn global(&mut self) -> Result<Global, Stop> {
        let (module, name) = (self.line()?, self.line()?);
        Global::find(module, name).map_or_else(
            || refuse(format!("it names `{module}.{name}`, which is not needed for tensors and is not run")),
            Ok,
        )
    }

    /// An integer of up to eight bytes, two's complement.
    fn long(&mut self) -> Result<i64, Stop> {
        let [len] = self.array()?;
        if len > 8 {
            return refuse(format!("it has an integer of {len} bytes"));
        }
        let bytes = self.take(len.into())?;
        let negative = bytes.last().is_some_and(|byte| byte >> 7 == 1);
        let mut whole = [if negative { 0xff } else { 0 }; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        Ok(i64::from_le_bytes(whole))
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    /// What is above the last mark is the only thing that opcodes may take, but for those that end it.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, Stop> {
        match self.stack.len().checked_sub(count) {
            Some(height) if height >= self.floor() => Ok(self.stack.split_off(height)),
            _ => malformed(format!("its pickle takes more than there is before byte {}", self.position)),
        }
    }

    fn pop(&mut self) -> Result<Id, Stop> {
        // One was asked for.
        Ok(self.pop_many(1)?[0])
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Stop> {
        let height = self.marks.pop().filter(|height| *height <= self.stack.len());
        match height {
            Some(height) => Ok(self.stack.split_off(height)),
            None => malformed(format!("a mark is missing before byte {}", self.position)),
        }
    }

    fn memoize(&mut self, key: u32) -> Result<(), Stop> {
        let Some(top) = self.stack.last() else { return malformed("it remembers nothing".to_string()) };
        self.memo.insert(key, *top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), Stop> {
        let Some(id) = self.memo.get(&key) else { return malformed(format!("it has no value number {key}")) };
        self.stack.push(*id);
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), Stop> {
        let (pairs, []) = items.as_chunks::<2>() else { return malformed("a name in it has no value".to_string()) };
        let Some(Value::Dict(entries)) = self.stack.last().map(|top| &mut self.values[*top]) else {
            return malformed("it sets entries of something else than a dict".to_string());
        };
        entries.extend(pairs.iter().map(|[name, value]| (*name, *value)));
        Ok(())
    }

    fn tuple(&self, id: Id) -> &[Id] {
        match &self.values[id] {
            Value::Tuple(items) => items,
            _ => &[],
        }
    }

    /// `("storage", type, key, device, elements)`
    fn storage(&self, id: Id) -> Result<Storage, Stop> {
        let [kind, dtype, key, ..] = self.tuple(id) else {
            return refuse("it refers to something that is no storage".to_string());
        };
        match (&self.values[*kind], &self.values[*dtype], &self.values[*key]) {
            (Value::Text(kind), Value::Global(Global::Storage(dtype)), Value::Text(key)) if &**kind == "storage" => {
                Ok(Storage { dtype, key: key.clone() })
            }
            _ => refuse("it refers to something that is no storage".to_string()),
        }
    }

    fn call(&mut self, function: Id, arguments: Id) -> Result<(), Stop> {
        let Value::Global(function) = self.values[function] else {
            return malformed(format!("it calls {}", self.values[function].what()));
        };
        match (function, self.tuple(arguments)) {
            (Global::OrderedDict, []) => self.push(Value::Dict(Vec::new())),
            // The tensor, and whether it is trained.
            (Global::RebuildParameter, &[tensor, ..]) if matches!(self.values[tensor], Value::Tensor(_)) => {
                self.stack.push(tensor);
            }
            // Two that are for training come after the strides, and then what is to be done to the values.
            (Global::RebuildTensor, &[storage, offset, shape, strides, ref rest @ ..]) => {
                let changes = rest.get(2).map_or(&Value::None, |changes| &self.values[*changes]);
                if !matches!(changes, Value::None) && !matches!(changes, Value::Dict(changes) if changes.is_empty()) {
                    let problem = "it has a tensor whose values are not those of its storage (negated or conjugated)";
                    return refuse(problem.to_string());
                }
                let Value::Storage(storage) = &self.values[storage] else {
                    return refuse("it has a tensor without storage".to_string());
                };
                let storage = storage.clone();
                let (shape, strides) = (self.numbers(self.tuple(shape))?, self.numbers(self.tuple(strides))?);
                let [offset] = self.numbers(&[offset])?[..] else { return malformed("an offset is missing".into()) };
                if shape.len() != strides.len() {
                    return malformed(format!("a tensor has {} sizes and {} strides", shape.len(), strides.len()));
                }
                self.push(Value::Tensor(Tensor { storage, offset, shape, strides }));
            }
            (function, _) => {
                return refuse(format!("it calls {function:?} with other arguments than torch.save gives"));
            }
        }
        Ok(())
    }

    /// Integers that are not negative.
    fn numbers(&self, ids: &[Id]) -> Result<Vec<u64>, Stop> {
        if ids.len() > MAX_DIMS {
            return refuse(format!("it has a tensor of {} dimensions, more than {MAX_DIMS}", ids.len()));
        }
        let number = |id: &Id| match &self.values[*id] {
            Value::Integer(number) => u64::try_from(*number).ok(),
            _ => None,
        };
        let numbers: Option<Vec<u64>> = ids.iter().map(number).collect();
        numbers.map_or_else(|| malformed("a size in it is no whole number from 0".to_string()), Ok)
    }
}
