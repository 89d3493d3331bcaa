"""The weights people have: of VGG16, FCN and ResNet-50, in the files of other frameworks.

container.py    which format a file has, by its first bytes; hdf5.py, numpy_file.py, matlab.py,
                torch_file.py and caffe.py read one each into arrays by name
read.py         what the arrays are, by names and shapes; vgg.py, resnet.py and published.py
                bring them to one kind: correlation, (outputs, inputs, rows, columns), bands in
                the order red, green, blue, and the mean and deviation that go with them
apply.py        into a net
complete.py     a whole model, if the file has everything that one needs
"""

from fcntile.models.pretrained.apply import load_into
from fcntile.models.pretrained.description import Pretrained
from fcntile.models.pretrained.read import read_pretrained

__all__ = ["Pretrained", "load_into", "read_pretrained"]
